/* The run through all nodes. */
#include "codes.h"
#include "convolve.h"
#include "depthwise.h"
#include "elementwise.h"
#include "layers8.h"
#include "normalise.h"
#include "pool.h"
#include "vector.h"

#if FLOAT_LAYERS
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

/* Of each row of x: y = alpha * x w + beta * bias. */
static void dense_row(const Node *node, const float *x, u32 features, float *y, u32 outputs) {
    const float *w = node->values[0], *bias = node->values[1];
    u32 each = bias && node->constant[1]->weights > 1;
    for (u32 o = 0; o < outputs && node->transposed; o++) y[o] = dot(w + (size_t)o * features, x, features);
    if (!node->transposed) {
        for (u32 o = 0; o < outputs; o++) y[o] = 0.0f;
        for (u32 i = 0; i < features; i++, w += outputs)
            for (u32 o = 0; o < outputs; o++) y[o] += x[i] * w[o];
    }
    for (u32 o = 0; o < outputs; o++) {
        y[o] = node->alpha * y[o] + (bias ? node->beta * bias[each * o] : 0.0f);
        if (node->relu && !(y[o] > 0.0f)) y[o] = 0.0f;
    }
}

static void dense(const Node *node, const Value *in, const Value *out, const float *x, float *y) {
    u32 features = in->count / node->rows, outputs = out->count / node->rows;
    for (u32 row = 0; row < node->rows; row++)
        dense_row(node, x + (size_t)row * features, features, y + (size_t)row * outputs, outputs);
}

static void convolve(const Plan *plan, const Node *node, const Value *in, const Value *out, const float *x,
                     float *y) {
    u32 area = out->shape[2] * out->shape[3];
    if (sqz_is_depthwise(node)) {
        sqz_depthwise(node, in, out, x, y);
        return;
    }
    for (u32 n = 0; n < in->shape[0]; n++)
        sqz_convolve(node, in, out, x + (size_t)n * (in->count / in->shape[0]),
                     y + (size_t)n * (out->count / in->shape[0]), 0, area, area,
                     (float *)(void *)plan->scratch);
}
#endif

static void copy(const u8 *x, u8 *y, size_t bytes) {
    if (x != y)
        for (size_t i = 0; i < bytes; i++) y[i] = x[i];
}

/* One part of a Concat, in each of its rows. */
static void concatenate(const Node *node, const Value *part, const Value *out, u32 bytes, const u8 *x, u8 *y) {
    u32 rows = 1;
    for (u32 i = 0; i < node->axis; i++) rows *= out->shape[i];
    size_t from = (size_t)(part->count / rows) * bytes, to = (size_t)(out->count / rows) * bytes;
    for (u32 i = 0; i < rows; i++) copy(x + i * from, y + i * to, from);
}

static u32 bytes_of(const Value *value) { return value->coded ? 1 : 4; }

static void *memory_of(const Plan *plan, u32 value, const float *image) {
    size_t offset = 0, bytes = bytes_of(plan->values + value);
    while (plan->values[value].root != value) {
        offset += plan->values[value].offset;
        value = plan->values[value].root;
    }
    /* The image is only ever read. */
    return (value ? plan->activations + plan->values[value].place : (u8 *)image) + offset * bytes;
}

/* What a node reads: a value, or a stored tensor. */
static const void *operand(const Plan *plan, const Node *node, u32 i, const float *image) {
    u32 value = plan->inputs[node->first_input + i];
    return value == ABSENT ? node->values[i] : memory_of(plan, value, image);
}

static void run_concat(const Plan *plan, const Node *node, const float *image) {
    const Value *out = plan->values + node->output;
    u8 *to = memory_of(plan, node->output, image);
    u32 bytes = bytes_of(out);
    for (u32 i = 0; i < node->inputs; i++) {
        u32 value = plan->inputs[node->first_input + i];
        const Value *part = plan->values + value;
        concatenate(node, part, out, bytes, memory_of(plan, value, image), to);
        u32 rest = 1;
        for (u32 j = node->axis; j < part->axes; j++) rest *= part->shape[j];
        to += (size_t)rest * bytes;
    }
}

#if INT8_LAYERS
static void run_on_codes(const Plan *plan, const Node *node, const float *image) {
    const u32 *inputs = plan->inputs + node->first_input;
    const Value *in = plan->values + inputs[0], *out = plan->values + node->output;
    const u8 *x = memory_of(plan, inputs[0], image);
    void *y = memory_of(plan, node->output, image);
    switch (node->op) {
    case CONV: sqz_convolve8(plan, node, in, out, x, y); break;
    case DENSE_LAYER: sqz_dense8(node, in, out, x, y); break;
    case MAX_POOL: sqz_max_pool_codes(node, in, out, x, y, plan->scratch); break;
    case AVERAGE_POOL: sqz_average_pool_codes(node, in, out, x, y); break;
    case REDUCE: sqz_mean_codes(node, in, out, x, y); break;
    case BINARY:
        sqz_add_codes(node, in, plan->values + inputs[1], out, x, memory_of(plan, inputs[1], image), y);
        break;
    case MOVE: sqz_move_codes(node, x, y); break;
    case CONCAT: run_concat(plan, node, image); break;
    default: break;
    }
}
#endif

static void run_node(const Plan *plan, const Node *node, const float *image) {
    const u32 *inputs = plan->inputs + node->first_input;
    const Value *in = inputs[0] == ABSENT ? NULL : plan->values + inputs[0];
    const Value *out = plan->values + node->output;
#if INT8_LAYERS
    if (node->codes) {
        run_on_codes(plan, node, image);
        return;
    }
#endif
    const float *x = operand(plan, node, 0, image);
    float *y = memory_of(plan, node->output, image);
    switch (node->op) {
#if FLOAT_LAYERS
    case CONV: convolve(plan, node, in, out, x, y); break;
    case DENSE_LAYER: dense(node, in, out, x, y); break;
#endif
    case MAX_POOL:
    case AVERAGE_POOL: sqz_pool(node, in, out, x, y); break;
    case REDUCE: sqz_reduce(node, x, y, out->count); break;
    case UNARY: sqz_unary(node, x, y, out->count); break;
    case BINARY: sqz_binary(node, x, operand(plan, node, 1, image), y); break;
    case CONCAT: run_concat(plan, node, image); break;
    case LRN: sqz_lrn(node, in, x, y); break;
    case BATCH_NORM: sqz_batch_norm(node, in, x, y); break;
    case SOFTMAX:
        copy((const u8 *)x, (u8 *)y, 4 * (size_t)out->count);
        sqz_softmax_along(node, in, y);
        break;
    case MOVE: sqz_move(node, x, y, out->count); break;
#if INT8_LAYERS
    case TO_CODES: sqz_to_codes(out, x, (u8 *)y); break;
    case FROM_CODES: sqz_from_codes(in, (const u8 *)x, y); break;
#endif
    default: break; /* SAME */
    }
}

void sqz_run(const sqz_network *net, const float *input, float *output) {
    const Plan *plan = net->plan;
    for (u32 i = 0; i < plan->node_count; i++) run_node(plan, plan->nodes + i, input);
    copy(memory_of(plan, plan->output, input), (u8 *)output, 4 * (size_t)net->classes);
}
