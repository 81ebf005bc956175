/* LRN, batch norm and softmax. */
#include "normalise.h"
#include "numbers.h"

static u32 after(const Value *value, u32 axis) { /* the product of the axes from one on */
    u32 product = 1;
    for (u32 i = axis; i < value->axes; i++) product *= value->shape[i];
    return product;
}

/* Krizhevsky et al. 2012, section 3.3; ONNX divides alpha by the window. */
void sqz_lrn(const Node *node, const Value *in, const float *x, float *y) {
    u32 area = after(in, 2), channels = in->shape[1];
    u32 head = (node->window - 1) / 2, tail = node->window / 2;
    for (u32 n = 0; n < in->shape[0]; n++, x += (size_t)channels * area)
        for (u32 c = 0; c < channels; c++) {
            u32 first = c < head ? 0 : c - head, last = u32_min(c + tail, channels - 1);
            for (u32 i = 0; i < area; i++) {
                double squares = 0.0;
                for (u32 j = first; j <= last; j++) {
                    double value = (double)x[(size_t)j * area + i];
                    squares += value * value;
                }
                double base = (double)node->bias + (double)node->alpha / (double)node->window * squares;
                double power = base > 1e-300 ? sqz_exp(-(double)node->beta * sqz_log(base)) : 0.0;
                *y++ = (float)((double)x[(size_t)c * area + i] * power);
            }
        }
}

void sqz_batch_norm(const Node *node, const Value *in, const float *x, float *y) {
    u32 area = after(in, 2), channels = in->shape[1];
    for (u32 n = 0; n < in->shape[0]; n++)
        for (u32 c = 0; c < channels; c++) {
            double variance = (double)node->values[3][c] + (double)node->alpha;
            double scale = (double)node->values[0][c] / sqz_sqrt(variance);
            double shift = (double)node->values[1][c] - (double)node->values[2][c] * scale;
            for (u32 i = 0; i < area; i++) *y++ = (float)((double)*x++ * scale + shift);
        }
}

/* `count` numbers, `step` apart from one another. */
static void softmax(float *y, u32 count, size_t step, int logarithms) {
    float most = *y;
    double sum = 0.0;
    for (u32 i = 1; i < count; i++) most = y[i * step] > most ? y[i * step] : most;
    for (u32 i = 0; i < count; i++) {
        double power = sqz_exp((double)y[i * step] - (double)most);
        sum += power;
        if (!logarithms) y[i * step] = (float)power;
    }
    double log = logarithms ? sqz_log(sum) : 0.0;
    for (u32 i = 0; i < count; i++)
        y[i * step] = (float)(logarithms ? (double)y[i * step] - (double)most - log
                                         : (double)y[i * step] / sum);
}

void sqz_softmax(float *values, int32_t count) { softmax(values, (u32)count, 1, 0); }

void sqz_softmax_along(const Node *node, const Value *in, float *y) {
    u32 row = after(in, node->axis), inside = node->rows ? 1 : after(in, node->axis + 1);
    for (u32 start = 0; start < in->count; start += row)
        for (u32 i = 0; i < inside; i++) softmax(y + start + i, row / inside, inside, (int)node->kind);
}
