/* Decodes every tensor that a plan uses, to where and in the order in which it is used. */
#include "weights.h"
#include "convolve.h"
#include "depthwise.h"
#include "limits.h"
#include "tensors.h"
#include "text.h"

static u64 u64_max(u64 a, u64 b) { return a > b ? a : b; }

/* Whether a tensor is a convolution's weights, which are packed for their use. */
static int is_packed(const Node *node, u32 i) {
    return node->op == CONV && !i && !sqz_is_depthwise(node);
}

/* Bytes of a tensor as it is used. */
static u64 bytes_of(const Node *node, u32 i) {
    return is_packed(node, i) ? 4 * sqz_packed_weights(node) : 4 * (u64)node->constant[i]->weights;
}

/* What decoding a node's tensors needs on the way, in bytes: the most of all. */
static void add_scratch(const Node *node, u64 *state, u64 *scratch) {
    for (u32 i = 0; i < MOST_CONSTANTS; i++) {
        const Record *record = node->constant[i];
        u64 bytes, held;
        if (!record) continue;
        sqz_tensor_scratch(record, &held, &bytes);
        bytes += ALIGNMENT;
        if (is_packed(node, i)) bytes += 4 * (u64)record->weights; /* before they are packed */
        *state = u64_max(*state, held);
        *scratch = u64_max(*scratch, bytes);
    }
}

static sqz_error decode_node(sqz_network *net, Node *node, void *state, float *scratch) {
    for (u32 i = 0; i < MOST_CONSTANTS; i++) {
        const Record *record = node->constant[i];
        if (!record) continue;
        int packed = is_packed(node, i);
        float *to = packed ? scratch : node->values[i];
        float *rest = packed ? scratch + ((record->weights + 3) & ~3u) : scratch;
        sqz_error error = sqz_tensor_decode(record, to, state, rest);
        if (error) return sqz_refused(net, error, record->name);
        if (packed) sqz_pack_weights(node, scratch, node->values[i]);
    }
    return SQZ_OK;
}

sqz_error sqz_read_weights(sqz_network *net, Memory *memory) {
    Plan *plan = net->plan;
    u64 state = 0, scratch = 0, weights = 0;
    for (u32 i = 0; i < plan->node_count; i++) {
        Node *node = plan->nodes + i;
        add_scratch(node, &state, &scratch);
        for (u32 j = 0; j < MOST_CONSTANTS; j++) {
            if (!node->constant[j]) continue;
            weights += node->constant[j]->weights;
            if (weights > MOST_WEIGHTS || weights_within(weights, plan->file_bytes))
                return sqz_refused(net, SQZ_LIMIT, node->constant[j]->name);
            node->values[j] = allot(memory, bytes_of(node, j));
        }
    }
    /* What decoding needs and the activations of running are never there at once. */
    u64 running = 4 * (plan->scratch_floats + plan->activation_floats);
    state = (state + ALIGNMENT - 1) & ~(u64)(ALIGNMENT - 1);
    u8 *working = allot(memory, u64_max(state + scratch, running));
    if (!working) return SQZ_MEMORY;
    plan->scratch = (float *)(void *)working;
    plan->activations = plan->scratch + plan->scratch_floats;
    sqz_tensor_start(working, state);
    for (u32 i = 0; i < plan->node_count; i++) {
        sqz_error error =
            decode_node(net, plan->nodes + i, working, (float *)(void *)(working + state));
        if (error) return error;
    }
    return SQZ_OK;
}
