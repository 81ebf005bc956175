/* The attributes of a node. */
#ifndef SQZ_ATTRIBUTES_H
#define SQZ_ATTRIBUTES_H

#include "basics.h"

enum { MOST_SIDE = 1 << 16 }; /* of a kernel, a stride, a padding */

/* All that the operators below have; what is absent has ONNX's default. */
typedef struct {
    u32 kernel[2], stride[2], pads[4], dilation[2];
    u32 group, ceil, transpose_a, transpose_b, size;
    i64 axis;
    float alpha, beta, bias;
    int has_axis, has_alpha, has_beta;
} Attributes;

/* Reads them all, over ONNX's defaults; 0 where one has a name or a value that is not supported. */
int sqz_read_attributes(Span node, Attributes *attributes);

#endif
