/* Codes of numbers. */
#ifndef SQZ_CODES_H
#define SQZ_CODES_H

#include "plan.h"

/* A number of 0 or more as a ratio of integers. */
Ratio sqz_ratio(double number);

/* The code of a number. */
u32 sqz_code(float x, float step, u32 zero);

void sqz_to_codes(const Value *out, const float *x, u8 *y);
void sqz_from_codes(const Value *in, const u8 *x, float *y);

/* Sums of products of a filter, from place `at` of the output on. */
void sqz_put_sums(const Node *node, const Filter *filter, const Value *out, const i32 *sums, u32 count,
                  void *y, size_t at);

/* The mean of `count` codes whose differences from zero have this sum. */
void sqz_put_mean(const Value *in, const Value *out, i64 sum, u32 count, void *y, u32 at);

#endif
