/* Layers on codes: uint8 times int8, added up in int32. */
#ifndef SQZ_LAYERS8_H
#define SQZ_LAYERS8_H

#include "plan.h"

/* Bytes that a layer's weights take, and that it needs while it runs. */
u64 sqz_weights8(const Node *node);
u64 sqz_scratch8(const Plan *plan, const Node *node);

/* Brings weights into the order in which they are used. */
void sqz_pack8(const Node *node, const i8 *from, i8 *to);

/* What of the processor's the layers may use. */
u32 sqz_find_simd(void);

void sqz_convolve8(const Plan *plan, const Node *node, const Value *in, const Value *out, const u8 *x, void *y);
void sqz_dense8(const Node *node, const Value *in, const Value *out, const u8 *x, void *y);

#endif
