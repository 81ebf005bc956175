/* Weights from floats to int8, equal to Python's to the last one (runtime/int8.py). */
#include "weights8.h"
#include "codes.h"
#include "depthwise.h"
#include "numbers.h"

#if INT8_LAYERS

static double magnitude(double x) { return x < 0.0 ? -x : x; }

/* A sum in the order in which NumPy adds. */
static double pairwise(const double *x, u32 count) {
    double sums[8], sum = 0.0;
    if (count < 8) {
        for (u32 i = 0; i < count; i++) sum += x[i];
        return sum;
    }
    if (count > 128) {
        u32 half = count / 2;
        half -= half % 8;
        return pairwise(x, half) + pairwise(x + half, count - half);
    }
    u32 i = 8;
    for (u32 j = 0; j < 8; j++) sums[j] = x[j];
    for (; i < count - count % 8; i += 8)
        for (u32 j = 0; j < 8; j++) sums[j] += x[i + j];
    sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; i < count; i++) sum += x[i];
    return sum;
}

static double in_turn(const double *x, u32 count) {
    double sum = 0.0;
    for (u32 i = 0; i < count; i++) sum += x[i];
    return sum;
}

/* How many are above a bound, and how many equal to it. */
static u32 above(const double *x, u32 count, double bound, u32 *equal) {
    u32 larger = 0;
    *equal = 0;
    for (u32 i = 0; i < count; i++) {
        larger += x[i] > bound;
        *equal += x[i] == bound;
    }
    return larger;
}

/* The wanted-th largest of numbers from 0 to 1: by picking some of them, and where that takes long by
 * halving what is left of all the bits that a number has. */
static double ranked(const double *x, u32 count, u32 wanted, u32 *larger) {
    union {
        double number;
        u64 bits;
    } low = {0.0}, high = {1.0}, middle;
    u32 equal, pick = 0;
    for (u32 round = 0;; round++) {
        middle.bits = low.bits + (high.bits - low.bits) / 2;
        if (round < 32) {
            u32 steps = 0;
            pick = (pick * 1664525u + 1013904223u) % count;
            while (steps < count && !(x[pick] >= low.number && x[pick] <= high.number)) {
                pick = pick + 1 == count ? 0 : pick + 1;
                steps++;
            }
            middle.number = x[pick];
        }
        *larger = above(x, count, middle.number, &equal);
        if (*larger >= wanted) low.bits = middle.bits + 1;
        else if (*larger + equal >= wanted || middle.bits == 0) return middle.number;
        else high.bits = middle.bits - 1;
    }
}

/* Rounds one row so that it keeps its sum: numbers that were nearest to it go the other way. */
static int round_row(const float *row, u32 step, u32 count, double unit, int paired, double *errors,
                      i8 *codes) {
    u32 larger, equal = 0;
    for (u32 i = 0; i < count; i++) {
        double scaled = (double)row[(size_t)i * step] / unit, code = sqz_rounded(scaled);
        if (!(magnitude(code) <= 127.0)) return 0; /* of what is no number */
        codes[i] = (i8)code;
        errors[i] = scaled - code;
    }
    double missing = sqz_rounded(paired ? pairwise(errors, count) : in_turn(errors, count));
    if (missing == 0.0) return 1;
    for (u32 i = 0; i < count; i++) {
        errors[i] = missing > 0.0 ? errors[i] : -errors[i];
        if (!(errors[i] > 0.0)) errors[i] = 0.0;
    }
    u32 turned = (u32)magnitude(missing);
    turned = u32_min(turned, count);
    double bound = ranked(errors, count, turned, &larger);
    for (u32 i = 0; i < count; i++) {
        int turn = errors[i] > bound || (errors[i] == bound && equal < turned - larger);
        equal += errors[i] == bound;
        if (turn && errors[i] > 0.0) codes[i] = (i8)(codes[i] + (missing > 0.0 ? 1 : -1));
    }
    return 1;
}

static double largest_of(const float *x, u32 step, u32 count) {
    double most = 0.0;
    for (u32 i = 0; i < count; i++) {
        double size = magnitude((double)x[(size_t)i * step]);
        most = size > most ? size : most;
    }
    return most;
}

sqz_error sqz_round_weights(const Node *node, const Value *in, const Value *out, const float *weights,
                            const float *bias, double *errors, i8 *codes, Filter *filters) {
    const u32 *shape = node->constant[0]->shape;
    int conv = node->op == CONV, by_column = !conv && !node->transposed;
    u32 rows = by_column ? shape[1] : shape[0], count = node->constant[0]->weights / rows;
    u32 step = by_column ? rows : 1, biases = bias ? node->constant[1]->weights : 0;
    float unit_of_bias = (float)((double)in->step * 1073741824.0);
    for (u32 row = 0; row < rows; row++, codes += count, filters++) {
        const float *from = weights + (by_column ? row : (size_t)row * count);
        double unit = conv ? largest_of(from, 1, count) : row ? 0.0 : largest_of(weights, 1, rows * count);
        static const Filter none;
        unit = (unit > 0.0 ? unit : 1.0) / 127.0;
        if (biases) { /* a large one beside small weights needs a larger unit */
            double most = conv ? magnitude((double)bias[row]) : row ? 0.0 : largest_of(bias, 1, biases);
            double least = (double)((float)most / unit_of_bias);
            unit = least > unit ? least : unit;
        }
        if (!conv && row) unit = errors[count]; /* one for all */
        errors[count] = unit;
        if (!round_row(from, step, count, unit, !by_column || rows == 1, errors, codes)) return SQZ_UNSUPPORTED;
        *filters = none;
        double own = biases ? sqz_rounded((double)bias[biases > 1 ? row : 0] / (unit * (double)in->step)) : 0.0;
        double sum = 0.0, most = magnitude(own);
        for (u32 i = 0; i < count; i++) {
            sum += (double)codes[i];
            most += 255.0 * magnitude((double)codes[i]);
        }
        if (!(most <= 2147483647.0)) return SQZ_UNSUPPORTED;
        double product = (double)in->step * (double)(float)unit;
        filters->bias = (i32)own;
        /* Sums are of codes, and not of their differences from zero, but for depthwise ones. */
        if (node->op != CONV || !sqz_is_depthwise(node))
            filters->bias = (i32)((u32)filters->bias - in->zero * (u32)(i32)sum);
        filters->unit = (float)product;
        if (out->coded) filters->ratio = sqz_ratio(product / (double)out->step);
    }
    return SQZ_OK;
}

#endif
