/* The operators, and the run through all of them. */
#include "convolve.h"
#include "numbers.h"
#include "vector.h"

void sqz_softmax(float *values, int32_t count) {
    float most = values[0];
    double sum = 0.0;
    for (i32 i = 1; i < count; i++) most = values[i] > most ? values[i] : most;
    for (i32 i = 0; i < count; i++) sum += values[i] = (float)sqz_exp((double)values[i] - most);
    for (i32 i = 0; i < count; i++) values[i] = (float)(values[i] / sum);
}

/* ---- operators ---- */

static float relu(float x) { return x > 0.0f ? x : 0.0f; }

static float dot(const float *a, const float *b, u32 count) {
    V4 sums[4] = {v4_all(0.0f), v4_all(0.0f), v4_all(0.0f), v4_all(0.0f)};
    float lanes[4], sum = 0.0f;
    u32 i = 0;
    for (; i + 16 <= count; i += 16)
        for (u32 j = 0; j < 4; j++)
            sums[j] = v4_add(sums[j], v4_mul(v4_load(a + i + 4 * j), v4_load(b + i + 4 * j)));
    v4_store(lanes, v4_add(v4_add(sums[0], sums[1]), v4_add(sums[2], sums[3])));
    for (; i < count; i++) sum += a[i] * b[i];
    return sum + lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static void gemm(const Node *node, const float *x, u32 features, float *y, u32 outputs) {
    const float *w = node->weights;
    for (u32 o = 0; o < outputs && node->transposed; o++) y[o] = dot(w + (size_t)o * features, x, features);
    if (!node->transposed) {
        for (u32 o = 0; o < outputs; o++) y[o] = 0.0f;
        for (u32 i = 0; i < features; i++, w += outputs)
            for (u32 o = 0; o < outputs; o++) y[o] += x[i] * w[o];
    }
    for (u32 o = 0; o < outputs; o++) {
        y[o] = node->alpha * y[o] + (node->biases ? node->beta * node->biases[o] : 0.0f);
        if (node->relu) y[o] = relu(y[o]);
    }
}

/* Pools rows `from` to `to` of one channel; x begins with row `above` of the input. */
static void pool(const Node *node, const Value *in, const Value *out, const float *x, u32 above,
                 float *y, u32 from, u32 to) {
    u32 height = in->shape[1], width = in->shape[2];
    for (u32 row = from; row < to; row++) {
        i64 first_y = (i64)row * node->stride[0] - node->before[0];
        u32 top = first_y < 0 ? 0 : (u32)first_y;
        u32 bottom = u32_min((u32)(first_y + node->kernel[0]), height);
        for (u32 column = 0; column < out->shape[2]; column++) {
            i64 first_x = (i64)column * node->stride[1] - node->before[1];
            u32 left = first_x < 0 ? 0 : (u32)first_x;
            u32 right = u32_min((u32)(first_x + node->kernel[1]), width);
            const float *line = x + (size_t)(top - above) * width;
            float most = line[left], sum = 0.0f;
            for (u32 i = top; i < bottom; i++, line += width)
                for (u32 j = left; j < right; j++) {
                    if (node->op == AVERAGE_POOL) sum += line[j];
                    else most = line[j] > most ? line[j] : most;
                }
            *y++ = node->op == AVERAGE_POOL ? sum / (float)((bottom - top) * (right - left)) : most;
        }
    }
}

static void pool_all(const Node *node, const Value *in, const Value *out, const float *x, float *y) {
    for (u32 c = 0; c < out->shape[0]; c++) {
        pool(node, in, out, x, 0, y, 0, out->shape[1]);
        x += (size_t)in->shape[1] * in->shape[2];
        y += (size_t)out->shape[1] * out->shape[2];
    }
}

static void global_pool(const Value *in, const float *x, float *y) {
    u32 area = in->shape[1] * in->shape[2];
    for (u32 c = 0; c < in->shape[0]; c++) {
        double sum = 0.0;
        for (u32 i = 0; i < area; i++) sum += *x++;
        *y++ = (float)(sum / area);
    }
}

/* Krizhevsky et al. 2012, section 3.3; ONNX divides alpha by the window. */
static void lrn(const Node *node, const Value *in, const float *x, float *y) {
    u32 area = in->shape[1] * in->shape[2], channels = in->shape[0], half = node->window / 2;
    for (u32 c = 0; c < channels; c++) {
        u32 first = c < half ? 0 : c - half, last = u32_min(c + half, channels - 1);
        for (u32 i = 0; i < area; i++) {
            double squares = 0.0;
            for (u32 j = first; j <= last; j++) {
                double value = x[(size_t)j * area + i];
                squares += value * value;
            }
            double base = node->bias + node->alpha / (double)node->window * squares;
            double power = base > 1e-300 ? sqz_exp(-node->beta * sqz_log(base)) : 0.0;
            *y++ = (float)(x[(size_t)c * area + i] * power);
        }
    }
}

static void copy(const float *x, float *y, u32 count) {
    if (x != y)
        for (u32 i = 0; i < count; i++) y[i] = x[i];
}

/* ---- the run ---- */

static float *memory_of(const Plan *plan, u32 value, const float *image) {
    size_t offset = 0;
    while (plan->values[value].root != value) {
        offset += plan->values[value].offset;
        value = plan->values[value].root;
    }
    /* The image is only ever read. */
    return (value ? plan->activations + plan->values[value].place : (float *)image) + offset;
}

static void run_node(const Plan *plan, const Node *node, const float *image) {
    const u32 *inputs = plan->inputs + node->first_input;
    const Value *in = plan->values + inputs[0], *out = plan->values + node->output;
    const float *x = memory_of(plan, inputs[0], image), *other;
    float *y = memory_of(plan, node->output, image);
    u32 count = elements(out), area = out->shape[1] * out->shape[2];
    switch (node->op) {
    case CONV: sqz_convolve(node, in, out, x, y, 0, area, area, plan->scratch); break;
    case GEMM: gemm(node, x, elements(in), y, count); break;
    case MAX_POOL:
    case AVERAGE_POOL: pool_all(node, in, out, x, y); break;
    case GLOBAL_POOL: global_pool(in, x, y); break;
    case RELU:
        for (u32 i = 0; i < count; i++) y[i] = relu(x[i]);
        break;
    case CONCAT:
        for (u32 i = 0; i < node->inputs; i++) {
            u32 part = elements(plan->values + inputs[i]);
            copy(memory_of(plan, inputs[i], image), y, part);
            y += part;
        }
        break;
    case ADD:
        other = memory_of(plan, inputs[1], image);
        for (u32 i = 0; i < count; i++) {
            float sum = x[i] + other[i];
            y[i] = node->relu ? relu(sum) : sum;
        }
        break;
    case LRN: lrn(node, in, x, y); break;
    case SOFTMAX:
        copy(x, y, count);
        sqz_softmax(y, (i32)count);
        break;
    case SAME: break;
    }
}

void sqz_run(const sqz_network *net, const float *input, float *output) {
    const Plan *plan = net->plan;
    for (u32 i = 0; i < plan->node_count; i++) run_node(plan, plan->nodes + i, input);
    copy(memory_of(plan, plan->output, input), output, (u32)net->classes);
}
