/* Shapes, strides, and loops joined where they can be. */
#include "shapes.h"

int sqz_set_shape(Value *value, u32 axes, const u64 *shape) {
    u64 count = 1;
    if (axes > MOST_AXES) return 0;
    for (u32 i = 0; i < axes; i++) {
        if (!shape[i] || shape[i] > 2 * MOST_WEIGHTS) return 0;
        count *= shape[i];
        if (count > 2 * MOST_WEIGHTS) return 0; /* those of two images */
        value->shape[i] = (u32)shape[i];
    }
    value->axes = axes;
    value->count = (u32)count;
    return 1;
}

int sqz_set_axis(Value *value, const Value *in, u32 axis, u64 size) {
    u64 shape[MOST_AXES];
    for (u32 i = 0; i < in->axes; i++) shape[i] = i == axis ? size : in->shape[i];
    return sqz_set_shape(value, in->axes, shape);
}

/* A last window that `ceil` lets reach past the edge still has to start inside (as ONNX, Caffe and
 * torch have it). */
u32 sqz_windows(const Window *w, u32 size, u32 axis) {
    u64 span = (u64)w->dilation[axis] * (w->kernel[axis] - 1) + 1, stride = w->stride[axis];
    u64 padded = (u64)size + w->before[axis] + w->after[axis];
    if (padded < span) return 0;
    u64 count = (padded - span + (w->ceil ? stride - 1 : 0)) / stride + 1;
    if (w->ceil && (count - 1) * stride >= (u64)size + w->before[axis]) count--;
    return (u32)count;
}

void sqz_strides(u32 axes, const u32 *shape, u32 *strides) {
    for (u32 i = axes, step = 1; i-- > 0; step *= shape[i]) strides[i] = step;
}

void sqz_simplify(Box *box) {
    u32 to = 0, kept = 0;
    for (u32 i = 0; i < box->axes; i++) {
        u32 n = box->extent[i];
        int keep = i < box->kept;
        if (n == 1) continue;
        if (to > (keep ? 0 : kept) && box->x[to - 1] == box->x[i] * n && box->y[to - 1] == box->y[i] * n) {
            to--;
            n *= box->extent[to];
            kept -= keep;
        }
        box->extent[to] = n;
        box->x[to] = box->x[i];
        box->y[to++] = box->y[i];
        kept += keep;
    }
    box->axes = to;
    box->kept = kept;
}
