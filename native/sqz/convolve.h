/* Convolution. */
#ifndef SQZ_CONVOLVE_H
#define SQZ_CONVOLVE_H

#include "plan.h"

/* Floats that a convolution's packed weights take, and that its packed pixels take while it runs. */
u64 sqz_packed_weights(const Node *node);
u64 sqz_packed_pixels(const Node *node);
/* Brings a convolution's weights into the order in which they are used. */
void sqz_pack_weights(const Node *node, const float *from, float *to);
/* Some of a convolution's pixels, counted through its rows; y has `plane` floats a channel, the
 * first of them for pixel `from`. */
void sqz_convolve(const Node *node, const Value *in, const Value *out, const float *x, float *y,
                  u32 from, u32 to, u32 plane, float *scratch);

#endif
