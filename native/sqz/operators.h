/* What each operator makes of its input: its settings, and the shape of its output. */
#ifndef SQZ_OPERATORS_H
#define SQZ_OPERATORS_H

#include "attributes.h"
#include "plan.h"

/* A node while it is read. */
typedef struct {
    sqz_network *net;
    Span graph, message, operator;
    Span names[3]; /* of its first inputs */
    u32 inputs;    /* how many it has */
    Node *node;
    Value *in, *out; /* of the values of its first input and of its output */
} Reader;

/* Which value or tensor has a name: ABSENT or NULL where none has it. */
u32 sqz_find_value(const Plan *plan, Span name);
const Record *sqz_find_record(const Plan *plan, Span name);

/* Whether this library has the operator, and for so many inputs; sets node->op. */
sqz_error sqz_find_operator(Reader *reader);

/* Fills node and output, of which the inputs' values are known. */
sqz_error sqz_plan_operator(Reader *reader, const Attributes *attributes);

int sqz_set_shape(Value *value, u64 channels, u64 height, u64 width);

#endif
