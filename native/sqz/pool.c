/* The largest value or the mean under each window. */
#include "pool.h"

/* Where the taps of a window lie along one axis: from `first` on, those below `end`. */
typedef struct {
    u32 first, end, counted; /* counted: taps that an average divides by */
} Taps;

static Taps taps_of(const Window *w, u32 size, u32 at, u32 axis) {
    i64 start = (i64)at * w->stride[axis] - w->before[axis], step = w->dilation[axis];
    i64 end = start + (i64)w->kernel[axis] * step;
    i64 padded = (i64)size + w->after[axis]; /* what `ceil` adds behind it never counts */
    Taps t;
    t.counted = (u32)((end < padded ? end : padded) - start);
    if (start < 0) start += (-start + step - 1) / step * step;
    t.first = (u32)start;
    t.end = (u32)(end < (i64)size ? end : (i64)size);
    if (!w->counts_padding) t.counted = t.end - t.first;
    return t;
}

static float window(const Node *node, const float *x, u32 width, Taps down, Taps across) {
    const Window *w = &node->on.window;
    float most = -3.402823466e38f, sum = 0.0f;
    for (u32 i = down.first; i < down.end; i += w->dilation[0]) {
        const float *line = x + (size_t)i * width;
        for (u32 j = across.first; j < across.end; j += w->dilation[1]) {
            sum += line[j];
            most = line[j] > most ? line[j] : most;
        }
    }
    return node->op == MAX_POOL ? most : sum / (float)(down.counted * across.counted);
}

void sqz_pool(const Node *node, const Value *in, const Value *out, const float *x, float *y) {
    u32 height = in->shape[2], width = in->shape[3];
    for (u32 c = 0; c < out->shape[0] * out->shape[1]; c++, x += (size_t)height * width)
        for (u32 row = 0; row < out->shape[2]; row++) {
            Taps down = taps_of(&node->on.window, height, row, 0);
            for (u32 column = 0; column < out->shape[3]; column++)
                *y++ = window(node, x, width, down, taps_of(&node->on.window, width, column, 1));
        }
}
