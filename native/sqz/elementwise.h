/* What is done to one number after another, and numbers that only move. */
#ifndef SQZ_ELEMENTWISE_H
#define SQZ_ELEMENTWISE_H

#include "plan.h"

void sqz_unary(const Node *node, const float *x, float *y, u32 count);
void sqz_binary(const Node *node, const float *a, const float *b, float *y);
void sqz_reduce(const Node *node, const float *x, float *y, u32 count);
void sqz_move(const Node *node, const float *x, float *y, u32 count);

/* The same of codes. */
void sqz_move_codes(const Node *node, const u8 *x, u8 *y);
void sqz_add_codes(const Node *node, const Value *a, const Value *b, const Value *out, const u8 *x,
                   const u8 *y, u8 *to);
void sqz_mean_codes(const Node *node, const Value *in, const Value *out, const u8 *x, void *y);

#endif
