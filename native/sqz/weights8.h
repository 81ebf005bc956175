/* Weights as int8. */
#ifndef SQZ_WEIGHTS8_H
#define SQZ_WEIGHTS8_H

#include "plan.h"

/* Rounds a layer's weights, as floats in the order in which they are stored, to int8 for each of
 * its outputs in turn, and finds what each output needs. `errors` has room for an output's weights.
 * SQZ_UNSUPPORTED where sums would not fit in 32 bits. */
sqz_error sqz_round_weights(const Node *node, const Value *in, const Value *out, const float *weights,
                            const float *bias, double *errors, i8 *codes, Filter *filters);

#endif
