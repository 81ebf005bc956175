/* What is done to one number after another, and numbers that only move. */
#ifndef SQZ_ELEMENTWISE_H
#define SQZ_ELEMENTWISE_H

#include "plan.h"

void sqz_unary(const Node *node, const float *x, float *y, u32 count);
void sqz_binary(const Node *node, const float *a, const float *b, float *y);
void sqz_reduce(const Node *node, const float *x, float *y, u32 count);
void sqz_move(const Node *node, const float *x, float *y, u32 count);

#endif
