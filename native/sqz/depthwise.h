/* Convolution of each channel by itself. */
#ifndef SQZ_DEPTHWISE_H
#define SQZ_DEPTHWISE_H

#include "plan.h"

/* Whether every filter of a convolution sees one channel alone. */
int sqz_is_depthwise(const Node *node);

/* The whole of it; its weights are as they are stored. */
void sqz_depthwise(const Node *node, const Value *in, const Value *out, const float *x, float *y);

/* The first output from which on a tap lies at or behind place `from` of the input. */
static inline u32 reaching(i64 start, u32 stride, i64 from, u32 most) {
    i64 steps = start >= from ? 0 : (from - start + stride - 1) / stride;
    return steps > (i64)most ? most : (u32)steps;
}

#endif
