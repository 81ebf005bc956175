/* Decodes every tensor that a plan uses, to where and in the order in which it is used. */
#include "weights.h"
#include "codes.h"
#include "convolve.h"
#include "depthwise.h"
#include "layers8.h"
#include "limits.h"
#include "numbers.h"
#include "tensors.h"
#include "text.h"
#include "weights8.h"

static u64 u64_max(u64 a, u64 b) { return a > b ? a : b; }

/* Whether a tensor is a convolution's weights, which are packed for their use. */
static int is_packed(const Node *node, u32 i) {
    return FLOAT_LAYERS && node->op == CONV && !i && !node->codes && !sqz_is_depthwise(node);
}

/* Bytes of a tensor as it is used. */
static u64 bytes_of(const Node *node, u32 i) {
#if FLOAT_LAYERS
    if (is_packed(node, i)) return 4 * sqz_packed_weights(node);
#endif
    return 4 * (u64)node->constant[i]->weights;
}

/* ---- weights of layers on codes ---- */

static int is_layer8(const Node *node) {
    return INT8_LAYERS && node->codes && (node->op == CONV || node->op == DENSE_LAYER);
}

static u64 rows_of(const Node *node) {
    const u32 *shape = node->constant[0]->shape;
    return shape[node->op == DENSE_LAYER && !node->transposed];
}

#if INT8_LAYERS
/* Places on the way from floats to int8, in bytes. */
typedef struct {
    u64 bias, errors, codes, rest;
} Places;

static u64 padded(u64 bytes) { return (bytes + ALIGNMENT - 1) & ~(u64)(ALIGNMENT - 1); }

static Places places_of(const Node *node) {
    Places p;
    u64 weights = node->constant[0]->weights, biases = node->constant[1] ? node->constant[1]->weights : 0;
    p.bias = padded(4 * weights);
    p.errors = p.bias + padded(4 * biases);
    p.codes = p.errors + padded(8 * (weights / rows_of(node) + 1));
    p.rest = p.codes + padded(node->op == CONV && !sqz_is_depthwise(node) ? weights : 0);
    return p;
}

static sqz_error decode8(sqz_network *net, Node *node, void *state, u8 *scratch) {
    const Plan *plan = net->plan;
    const Value *in = plan->values + plan->inputs[node->first_input], *out = plan->values + node->output;
    Places p = places_of(node);
    float *at[2] = {(float *)(void *)scratch, (float *)(void *)(scratch + p.bias)};
    int packs = p.rest > p.codes;
    for (u32 i = 0; i < 2 && node->constant[i]; i++) {
        sqz_error error = sqz_tensor_decode(node->constant[i], at[i], state, scratch + p.errors);
        if (error) return sqz_refused(net, error, node->constant[i]->name);
    }
    i8 *codes = packs ? (i8 *)(scratch + p.codes) : node->weights;
    sqz_error error = sqz_round_weights(node, in, out, at[0], node->constant[1] ? at[1] : NULL,
                                        (double *)(void *)(scratch + p.errors), codes, node->filters);
    if (error) return sqz_refused(net, error, node->constant[0]->name);
    if (packs) sqz_pack8(node, codes, node->weights);
    return SQZ_OK;
}

/* Both operands of an Add in units of its output. */
static void add_ratios(const Plan *plan, Node *node) {
    const Value *out = plan->values + node->output;
    double units[2];
    for (u32 i = 0; i < 2; i++)
        units[i] = (double)plan->values[plan->inputs[node->first_input + i]].step / (double)out->step;
    u32 larger = units[1] > units[0];
    Ratio ratio = sqz_ratio(units[larger]);
    node->filters[larger].ratio = ratio;
    node->filters[!larger].ratio.shift = node->filters[0].ratio.shift = ratio.shift;
    node->filters[!larger].ratio.multiplier =
        (i32)sqz_rounded(units[!larger] / units[larger] * (double)ratio.multiplier);
}
#endif

/* What decoding a node's tensors needs on the way, in bytes: the most of all. */
static void add_scratch(const Node *node, u64 *state, u64 *scratch) {
    for (u32 i = 0; i < MOST_CONSTANTS; i++) {
        const Record *record = node->constant[i];
        u64 bytes, held;
        if (!record) continue;
        sqz_tensor_scratch(record, &held, &bytes);
        bytes += ALIGNMENT;
        if (is_packed(node, i)) bytes += 4 * (u64)record->weights; /* before they are packed */
#if INT8_LAYERS
        if (is_layer8(node)) bytes += places_of(node).rest; /* more than enough: the rest begins earlier */
#endif
        *state = u64_max(*state, held);
        *scratch = u64_max(*scratch, bytes);
    }
}

static sqz_error decode_node(sqz_network *net, Node *node, void *state, float *scratch) {
#if INT8_LAYERS
    if (is_layer8(node)) return decode8(net, node, state, (u8 *)scratch);
    if (node->codes && node->op == BINARY) add_ratios(net->plan, node);
#endif
    for (u32 i = 0; i < MOST_CONSTANTS; i++) {
        const Record *record = node->constant[i];
        if (!record) continue;
        int packed = is_packed(node, i);
        float *to = packed ? scratch : node->values[i];
        float *rest = packed ? scratch + ((record->weights + 3) & ~3u) : scratch;
        sqz_error error = sqz_tensor_decode(record, to, state, rest);
        if (error) return sqz_refused(net, error, record->name);
#if FLOAT_LAYERS
        if (packed) sqz_pack_weights(node, scratch, node->values[i]);
#endif
    }
    return SQZ_OK;
}

sqz_error sqz_read_weights(sqz_network *net, Memory *memory) {
    Plan *plan = net->plan;
    u64 state = 0, scratch = 0, weights = 0;
    net->plan_bytes = memory->used;
    for (u32 i = 0; i < plan->node_count; i++) {
        Node *node = plan->nodes + i;
        add_scratch(node, &state, &scratch);
        for (u32 j = 0; j < MOST_CONSTANTS; j++) {
            if (!node->constant[j]) continue;
            weights += node->constant[j]->weights;
            if (weights > MOST_WEIGHTS || weights_within(weights, plan->file_bytes))
                return sqz_refused(net, SQZ_LIMIT, node->constant[j]->name);
            if (!is_layer8(node)) node->values[j] = allot(memory, bytes_of(node, j));
        }
        if (!node->codes) continue;
#if INT8_LAYERS
        if (is_layer8(node)) node->weights = allot(memory, sqz_weights8(node));
#endif
        if (is_layer8(node)) node->filters = allot(memory, rows_of(node) * sizeof(Filter));
        if (node->op == BINARY) node->filters = allot(memory, 2 * sizeof(Filter));
    }
    /* What decoding needs and the activations of running are never there at once. */
    u64 running = plan->scratch_bytes + plan->activation_bytes;
    state = (state + ALIGNMENT - 1) & ~(u64)(ALIGNMENT - 1);
    net->weight_bytes = memory->used - net->plan_bytes;
    net->opening_bytes = state + scratch;
    net->running_bytes = running;
    u8 *working = allot(memory, u64_max(state + scratch, running));
    if (!working) return SQZ_MEMORY;
    plan->scratch = working;
    plan->activations = plan->scratch + plan->scratch_bytes;
    sqz_tensor_start(working, state);
    for (u32 i = 0; i < plan->node_count; i++) {
        sqz_error error =
            decode_node(net, plan->nodes + i, working, (float *)(void *)(working + state));
        if (error) return error;
    }
    return SQZ_OK;
}
