/* The largest value or the mean under each window. */
#include "pool.h"
#include "codes.h"
#include "vector.h"

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

#if INT8_LAYERS

void sqz_max_pool_codes(const Node *node, const Value *in, const Value *out, const u8 *x, u8 *y, u8 *line) {
    const Window *w = &node->on.window;
    u32 height = in->shape[2], width = in->shape[3];
    for (u32 c = 0; c < out->shape[0] * out->shape[1]; c++, x += (size_t)height * width)
        for (u32 row = 0; row < out->shape[2]; row++) {
            Taps down = taps_of(w, height, row, 0); /* first along columns, then along the row */
            const u8 *from = x + (size_t)down.first * width;
            for (u32 i = 0; i < width; i++) line[i] = from[i];
            for (u32 at = down.first + w->dilation[0]; at < down.end; at += w->dilation[0]) {
                u32 i = 0;
                from = x + (size_t)at * width;
                for (; i + 16 <= width; i += 16) take_larger(line + i, from + i);
                for (; i < width; i++) line[i] = line[i] > from[i] ? line[i] : from[i];
            }
            for (u32 column = 0; column < out->shape[3]; column++) {
                Taps across = taps_of(w, width, column, 1);
                u8 most = 0;
                for (u32 i = across.first; i < across.end; i += w->dilation[1])
                    most = line[i] > most ? line[i] : most;
                *y++ = most;
            }
        }
}

void sqz_average_pool_codes(const Node *node, const Value *in, const Value *out, const u8 *x, void *y) {
    const Window *w = &node->on.window;
    u32 height = in->shape[2], width = in->shape[3], place = 0;
    for (u32 c = 0; c < out->shape[0] * out->shape[1]; c++, x += (size_t)height * width)
        for (u32 row = 0; row < out->shape[2]; row++) {
            Taps down = taps_of(w, height, row, 0);
            for (u32 column = 0; column < out->shape[3]; column++) {
                Taps across = taps_of(w, width, column, 1);
                i64 sum = 0;
                for (u32 i = down.first; i < down.end; i++)
                    for (u32 j = across.first; j < across.end; j++)
                        sum += (i32)x[(size_t)i * width + j] - (i32)in->zero;
                sqz_put_mean(in, out, sum, down.counted * across.counted, y, place++);
            }
        }
}

#endif
