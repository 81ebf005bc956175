/* Depthwise convolution, tap by tap along rows: there is nothing to pack pixels for. */
#include "depthwise.h"
#include "vector.h"

int sqz_is_depthwise(const Node *node) { return node->op == CONV && node->constant[0]->shape[1] == 1; }

#if FLOAT_LAYERS

/* y[i] += w * x[i * stride] */
static void add_row(float *y, const float *x, float w, u32 count, u32 stride) {
    u32 i = 0;
    V4 all = v4_all(w);
    for (; stride == 1 && i + 4 <= count; i += 4)
        v4_store(y + i, v4_add(v4_load(y + i), v4_mul(all, v4_load(x + i))));
    for (; i < count; i++) y[i] += w * x[(size_t)i * stride];
}

static void plane(const Window *w, const Value *in, const Value *out, const float *x, const float *taps,
                  float bias, int relu, float *y) {
    u32 height = in->shape[2], width = in->shape[3], columns = out->shape[3];
    for (u32 row = 0; row < out->shape[2]; row++, y += columns) {
        for (u32 i = 0; i < columns; i++) y[i] = bias;
        for (u32 ky = 0; ky < w->kernel[0]; ky++) {
            i64 at = (i64)row * w->stride[0] + (i64)ky * w->dilation[0] - w->before[0];
            if (at < 0 || at >= height) continue;
            for (u32 kx = 0; kx < w->kernel[1]; kx++) {
                i64 start = (i64)kx * w->dilation[1] - w->before[1];
                u32 first = reaching(start, w->stride[1], 0, columns);
                u32 end = reaching(start, w->stride[1], width, columns);
                if (first >= end) continue;
                add_row(y + first, x + (size_t)at * width + (size_t)(start + (i64)first * w->stride[1]),
                        taps[ky * w->kernel[1] + kx], end - first, w->stride[1]);
            }
        }
        for (u32 i = 0; i < columns && relu; i++) y[i] = y[i] > 0.0f ? y[i] : 0.0f;
    }
}

void sqz_depthwise(const Node *node, const Value *in, const Value *out, const float *x, float *y) {
    const Window *w = &node->on.window;
    u32 filters = out->shape[1], each = filters / in->shape[1], taps = w->kernel[0] * w->kernel[1];
    size_t from = (size_t)in->shape[2] * in->shape[3], to = (size_t)out->shape[2] * out->shape[3];
    for (u32 n = 0; n < in->shape[0]; n++)
        for (u32 f = 0; f < filters; f++, y += to)
            plane(w, in, out, x + ((size_t)n * in->shape[1] + f / each) * from,
                  node->values[0] + (size_t)f * taps, node->values[1] ? node->values[1][f] : 0.0f,
                  (int)node->relu, y);
}

#endif
