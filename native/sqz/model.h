/* The graph's bytes: only what docs/format.md lists. */
#ifndef SQZ_MODEL_H
#define SQZ_MODEL_H

#include "basics.h"

/* How much of everything there is; `nodes` as they run: one for each output of a Split. */
typedef struct {
    u32 nodes, inputs, initializers, opset;
    Span graph;
} Counts;

/* Whether bytes are a model that a .sqz may have: fields, kinds, counts; not yet its names. */
sqz_error sqz_check_model(sqz_network *net, Span model, Counts *counts);

#endif
