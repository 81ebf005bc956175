/* What each operator makes of its input: its settings, and the shape of its output. */
#ifndef SQZ_OPERATORS_H
#define SQZ_OPERATORS_H

#include "attributes.h"
#include "plan.h"

enum { MOST_NAMED = 5 };

/* A node while it is read. */
typedef struct {
    sqz_network *net;
    Plan *plan;
    Span message, operator;
    Span names[MOST_NAMED];            /* of its first inputs, empty where there are fewer */
    const Record *records[MOST_NAMED]; /* these, where they are tensors */
    u32 values[MOST_NAMED];            /* or values, else ABSENT */
    u32 inputs;                        /* how many it has */
    u32 part;                          /* of a Split: which output this is */
    u32 parts;
    Attributes attributes;
    Node *node;
    Value *in, *out; /* of the values of its first input and of its output */
} Reader;

/* Whether this library has the operator, for so many inputs and with its attributes. */
sqz_error sqz_find_operator(Reader *reader);

/* Fills node and output, of which the inputs are known. */
sqz_error sqz_plan_operator(Reader *reader);

#endif
