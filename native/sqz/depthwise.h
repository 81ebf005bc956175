/* Convolution of each channel by itself. */
#ifndef SQZ_DEPTHWISE_H
#define SQZ_DEPTHWISE_H

#include "plan.h"

/* Whether every filter of a convolution sees one channel alone. */
int sqz_is_depthwise(const Node *node);

/* The whole of it; its weights are as they are stored. */
void sqz_depthwise(const Node *node, const Value *in, const Value *out, const float *x, float *y);

#endif
