/* Normalisation across channels, by stored statistics, and to probabilities. */
#ifndef SQZ_NORMALISE_H
#define SQZ_NORMALISE_H

#include "plan.h"

void sqz_lrn(const Node *node, const Value *in, const float *x, float *y);
void sqz_batch_norm(const Node *node, const Value *in, const float *x, float *y);
void sqz_softmax_along(const Node *node, const Value *in, float *y);

#endif
