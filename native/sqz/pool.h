/* Pooling over windows. */
#ifndef SQZ_POOL_H
#define SQZ_POOL_H

#include "plan.h"

void sqz_pool(const Node *node, const Value *in, const Value *out, const float *x, float *y);

/* The same of codes; line has room for a row of the input. */
void sqz_max_pool_codes(const Node *node, const Value *in, const Value *out, const u8 *x, u8 *y, u8 *line);
void sqz_average_pool_codes(const Node *node, const Value *in, const Value *out, const u8 *x, void *y);

#endif
