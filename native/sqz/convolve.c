/* Convolution as a matrix product: pixels are packed block by block, so that all of it is in cache.
 *
 * A panel holds, for 8 pixels of the output, what lies under the kernel: (depth, 8), where depth
 * counts through (channels, kernel height, kernel width). A tile of weights is (depth, 4): those of
 * 4 filters (of 2, where there are no vectors). Tile times panel is done in registers (Goto, van de Geijn 2008).
 */
#include "convolve.h"
#include "vector.h"

#if FLOAT_LAYERS

enum { TILE = HAS_VECTORS ? 4 : 2, PANEL = 8, BLOCK_FLOATS = 1 << 15 };

static u32 depth_of(const Node *node) { return node->constant[0]->weights / node->constant[0]->shape[0]; }

static u32 tiles_of(const Node *node) { /* of one group */
    return (node->constant[0]->shape[0] / node->on.window.groups + TILE - 1) / TILE;
}

/* Panels of a block: as many as stay in the second-level cache. */
static u32 panels_of(const Node *node) {
    u32 depth = depth_of(node);
    return depth < BLOCK_FLOATS / PANEL ? BLOCK_FLOATS / PANEL / depth : 1;
}

u64 sqz_packed_weights(const Node *node) {
    return (u64)node->on.window.groups * tiles_of(node) * TILE * depth_of(node);
}

u64 sqz_packed_pixels(const Node *node) { return (u64)panels_of(node) * depth_of(node) * PANEL; }

void sqz_pack_weights(const Node *node, const float *from, float *to) {
    u32 depth = depth_of(node), filters = node->constant[0]->shape[0] / node->on.window.groups;
    for (u32 g = 0; g < node->on.window.groups; g++, from += (size_t)filters * depth)
        for (u32 f = 0; f < filters; f += TILE)
            for (u32 d = 0; d < depth; d++)
                for (u32 i = 0; i < TILE; i++)
                    *to++ = f + i < filters ? from[(size_t)(f + i) * depth + d] : 0.0f;
}

/* Where the pixels of a panel find what lies under one place of the kernel; -1 in the padding.
 * Returns whether they lie side by side. */
static int offsets(const Node *node, const Value *in, const u32 *rows, const u32 *columns, u32 ky,
                   u32 kx, i32 *at) {
    int beside = 1;
    for (u32 i = 0; i < PANEL; i++) {
        i64 y = (i64)rows[i] * node->on.window.stride[0] + (i64)ky * node->on.window.dilation[0] - node->on.window.before[0];
        i64 x = (i64)columns[i] * node->on.window.stride[1] + (i64)kx * node->on.window.dilation[1] - node->on.window.before[1];
        int inside = y >= 0 && x >= 0 && y < in->shape[2] && x < in->shape[3];
        at[i] = inside ? (i32)(y * in->shape[3] + x) : -1;
        beside &= inside && at[i] == at[0] + (i32)i;
    }
    return beside;
}

static void pack_panel(const Node *node, const Value *in, const Value *out, const float *x,
                       u32 pixel, float *panel) {
    u32 rows[PANEL], columns[PANEL], channels = in->shape[1] / node->on.window.groups;
    u32 taps = node->on.window.kernel[0] * node->on.window.kernel[1], last = out->shape[2] * out->shape[3] - 1;
    size_t plane = (size_t)in->shape[2] * in->shape[3];
    for (u32 i = 0; i < PANEL; i++) { /* behind the last pixel it stands again */
        u32 p = u32_min(pixel + i, last);
        rows[i] = p / out->shape[3];
        columns[i] = p % out->shape[3];
    }
    for (u32 tap = 0; tap < taps; tap++) {
        i32 at[PANEL];
        float *to = panel + (size_t)tap * PANEL;
        const float *from = x;
        if (offsets(node, in, rows, columns, tap / node->on.window.kernel[1], tap % node->on.window.kernel[1], at)) {
            from += at[0];
            for (u32 c = 0; c < channels; c++, from += plane, to += (size_t)taps * PANEL) {
                v4_store(to, v4_load(from));
                v4_store(to + 4, v4_load(from + 4));
            }
        } else {
            for (u32 c = 0; c < channels; c++, from += plane, to += (size_t)taps * PANEL)
                for (u32 i = 0; i < PANEL; i++) to[i] = at[i] < 0 ? 0.0f : from[at[i]];
        }
    }
}

/* A tile at a panel: y = relu(bias + weights * pixels), of which `filters` x `pixels` are kept. */
static void multiply(const float *w, const float *x, u32 depth, const float *bias, int relu, float *y,
                     u32 plane, u32 filters, u32 pixels) {
    V4 sum[TILE][2];
    UNROLLED for (u32 i = 0; i < TILE; i++)
        sum[i][0] = sum[i][1] = v4_all(bias && i < filters ? bias[i] : 0.0f);
    for (u32 d = 0; d < depth; d++, w += TILE, x += PANEL) {
        V4 left = v4_load(x), right = v4_load(x + 4);
        UNROLLED for (u32 i = 0; i < TILE; i++) {
            V4 weight = v4_all(w[i]);
            sum[i][0] = v4_add(sum[i][0], v4_mul(weight, left));
            sum[i][1] = v4_add(sum[i][1], v4_mul(weight, right));
        }
    }
    UNROLLED for (u32 i = 0; i < TILE; i++) {
        float edge[PANEL], *to = pixels < PANEL ? edge : y;
        if (i < filters) {
            v4_store(to, relu ? v4_above_zero(sum[i][0]) : sum[i][0]);
            v4_store(to + 4, relu ? v4_above_zero(sum[i][1]) : sum[i][1]);
            for (u32 j = 0; j < pixels && pixels < PANEL; j++) y[j] = edge[j];
            y += plane;
        }
    }
}

void sqz_convolve(const Node *node, const Value *in, const Value *out, const float *x, float *y,
                  u32 from, u32 to, u32 plane, float *scratch) {
    u32 depth = depth_of(node), tiles = tiles_of(node), block = panels_of(node) * PANEL;
    u32 filters = node->constant[0]->shape[0] / node->on.window.groups;
    size_t group_floats = (size_t)in->shape[2] * in->shape[3] * (in->shape[1] / node->on.window.groups);
    const float *w = node->values[0], *bias = node->values[1];
    for (u32 g = 0; g < node->on.window.groups; g++) {
        for (u32 start = from; start < to; start += block) {
            u32 end = u32_min(start + block, to);
            for (u32 p = start; p < end; p += PANEL)
                pack_panel(node, in, out, x, p, scratch + (size_t)(p - start) * depth);
            for (u32 t = 0; t < tiles; t++) {
                u32 f = t * TILE;
                for (u32 p = start; p < end; p += PANEL)
                    multiply(w + (size_t)f * depth, scratch + (size_t)(p - start) * depth, depth,
                             bias ? bias + f : NULL, (int)node->relu,
                             y + (size_t)f * plane + (p - from), plane,
                             u32_min(TILE, filters - f), u32_min(PANEL, end - p));
            }
        }
        w += (size_t)tiles * TILE * depth;
        if (bias) bias += filters;
        x += group_floats;
        y += (size_t)filters * plane;
    }
}

#endif
