/* Activations, sums and products with broadcasting, means, and copies in another order. */
#include "elementwise.h"
#include "codes.h"
#include "numbers.h"

static double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

static double softplus(double x) { /* ln(1 + e^x) */
    return x > 0.0 ? x + sqz_log(1.0 + sqz_exp(-x)) : sqz_log(1.0 + sqz_exp(x));
}

static double apply(const Node *node, double x) {
    double a = (double)node->alpha, b = (double)node->beta;
    switch ((Function)node->kind) {
    case RELU: return x > 0.0 ? x : 0.0;
    case LEAKY_RELU: return x < 0.0 ? a * x : x;
    case ELU: return x < 0.0 ? a * (sqz_exp(x) - 1.0) : x;
    case SIGMOID: return 1.0 / (1.0 + sqz_exp(-x));
    case HARD_SIGMOID: return clamp(a * x + b, 0.0, 1.0);
    case HARD_SWISH: return x * clamp(x / 6.0 + 0.5, 0.0, 1.0);
    case TANH: return sqz_tanh(x);
    case CLIP: return x < a ? (a < b ? a : b) : x > b ? b : x;
    case NEGATE: return -x;
    case EXPONENTIAL: return sqz_exp(x);
    case SQUARE_ROOT: return sqz_sqrt(x);
    case SOFTPLUS: return softplus(x);
    case MISH: return x * sqz_tanh(softplus(x));
    case ERF: return sqz_erf(x);
    case GELU: return 0.5 * x * (1.0 + sqz_erf(x * 0.7071067811865476));
    default: return 0.5 * x * (1.0 + sqz_tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    }
}

void sqz_unary(const Node *node, const float *x, float *y, u32 count) {
    for (u32 i = 0; i < count; i++) y[i] = (float)apply(node, (double)x[i]);
}

static float combine(const Node *node, float a, float b) {
    switch ((Combination)node->kind) {
    case ADD: a += b; break;
    case SUBTRACT: a -= b; break;
    case MULTIPLY: a *= b; break;
    case DIVIDE: a /= b; break;
    default: a = a < 0.0f ? a * b : a;
    }
    return node->relu && !(a > 0.0f) ? 0.0f : a;
}

/* ---- loops over a box: all but the innermost are counted here ---- */

typedef struct {
    u32 at[MOST_AXES], x, y, extent, x_step, y_step; /* the last three: of the innermost */
} Walk;

static Walk begin(const Box *box, u32 axes) {
    Walk w = {{0}, box->x_start, box->y_start, 1, 0, 0};
    if (axes) {
        w.extent = box->extent[axes - 1];
        w.x_step = box->x[axes - 1];
        w.y_step = box->y[axes - 1];
    }
    return w;
}

/* On to the next round of the innermost loop; 0 behind the last. */
static int next(const Box *box, u32 first, u32 axes, Walk *w) {
    for (u32 i = axes; i-- > first;) {
        w->x += box->x[i];
        w->y += box->y[i];
        if (++w->at[i] < box->extent[i]) return 1;
        w->x -= box->x[i] * box->extent[i];
        w->y -= box->y[i] * box->extent[i];
        w->at[i] = 0;
    }
    return 0;
}

void sqz_binary(const Node *node, const float *a, const float *b, float *y) {
    const Box *box = &node->on.box;
    Walk w = begin(box, box->axes);
    do {
        const float *p = a + w.x, *q = b + w.y;
        if (node->kind == ADD && w.x_step == 1 && w.y_step == 1 && !node->relu)
            for (u32 i = 0; i < w.extent; i++) *y++ = p[i] + q[i];
        else
            for (u32 i = 0; i < w.extent; i++, p += w.x_step, q += w.y_step) *y++ = combine(node, *p, *q);
    } while (next(box, 0, box->axes ? box->axes - 1 : 0, &w));
}

void sqz_move(const Node *node, const float *x, float *y, u32 count) {
    const Box *box = &node->on.box;
    Walk w = begin(box, box->axes);
    for (u32 i = 0; i < count && node->fills; i++) y[i] = node->alpha;
    do {
        const float *from = x + w.x;
        float *to = y + w.y;
        for (u32 i = 0; i < w.extent; i++, from += w.x_step, to += w.y_step) *to = *from;
    } while (next(box, 0, box->axes ? box->axes - 1 : 0, &w));
}

void sqz_reduce(const Node *node, const float *x, float *y, u32 count) {
    const Box *box = &node->on.box;
    Walk w = begin(box, 0);
    u32 times = 1;
    for (u32 i = box->kept; i < box->axes; i++) times *= box->extent[i];
    for (u32 j = 0; j < count; j++) {
        double sum = 0.0;
        float most = x[w.x];
        do {
            float value = x[w.x];
            sum += (double)value;
            most = value > most ? value : most;
        } while (next(box, box->kept, box->axes, &w));
        *y++ = node->kind == LARGEST ? most : (float)(node->kind == MEAN ? sum / times : sum);
        next(box, 0, box->kept, &w);
    }
}

#if INT8_LAYERS

void sqz_move_codes(const Node *node, const u8 *x, u8 *y) {
    const Box *box = &node->on.box;
    Walk w = begin(box, box->axes);
    do {
        const u8 *from = x + w.x;
        u8 *to = y + w.y;
        for (u32 i = 0; i < w.extent; i++, from += w.x_step, to += w.y_step) *to = *from;
    } while (next(box, 0, box->axes ? box->axes - 1 : 0, &w));
}

void sqz_add_codes(const Node *node, const Value *a, const Value *b, const Value *out, const u8 *x,
                   const u8 *y, u8 *to) {
    const Box *box = &node->on.box;
    const Filter *f = node->filters;
    i64 start = (((i64)out->zero * 2 + 1) << f->ratio.shift) / 2;
    Walk w = begin(box, box->axes);
    do {
        const u8 *p = x + w.x, *q = y + w.y;
        for (u32 i = 0; i < w.extent; i++, p += w.x_step, q += w.y_step) {
            i64 sum = start + (i64)((i32)*p - (i32)a->zero) * f[0].ratio.multiplier +
                      (i64)((i32)*q - (i32)b->zero) * f[1].ratio.multiplier;
            sum >>= f->ratio.shift;
            *to++ = (u8)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
    } while (next(box, 0, box->axes ? box->axes - 1 : 0, &w));
}

void sqz_mean_codes(const Node *node, const Value *in, const Value *out, const u8 *x, void *y) {
    const Box *box = &node->on.box;
    Walk w = begin(box, 0);
    u32 times = 1;
    for (u32 i = box->kept; i < box->axes; i++) times *= box->extent[i];
    for (u32 j = 0; j < out->count; j++) {
        i64 sum = -(i64)in->zero * times;
        u32 last = box->axes > box->kept ? box->axes - 1 : box->axes; /* the innermost loop at once */
        u32 extent = last < box->axes ? box->extent[last] : 1, step = last < box->axes ? box->x[last] : 0;
        do
            for (u32 i = 0; i < extent; i++) sum += x[w.x + i * step];
        while (next(box, box->kept, last, &w));
        sqz_put_mean(in, out, sum, times, y, j);
        next(box, 0, box->kept, &w);
    }
}

#endif
