/* Pooling over windows. */
#ifndef SQZ_POOL_H
#define SQZ_POOL_H

#include "plan.h"

void sqz_pool(const Node *node, const Value *in, const Value *out, const float *x, float *y);

#endif
