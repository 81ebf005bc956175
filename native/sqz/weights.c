/* Decodes every tensor that a plan uses, to where and in the order in which it is used. */
#include "weights.h"
#include "convolve.h"
#include "tensors.h"

static u64 u64_max(u64 a, u64 b) { return a > b ? a : b; }

/* What decoding a node's tensors needs on the way, in bytes: the most of all. */
static void add_scratch(const Node *node, u64 *state, u64 *scratch) {
    const Record *both[] = {node->weight, node->addend};
    for (u32 i = 0; i < 2; i++) {
        u64 bytes, held;
        if (!both[i]) continue;
        sqz_tensor_scratch(both[i], &held, &bytes);
        bytes += ALIGNMENT;
        if (!i && node->op == CONV) bytes += 4 * (u64)both[i]->weights; /* before they are packed */
        *state = u64_max(*state, held);
        *scratch = u64_max(*scratch, bytes);
    }
}

static sqz_error decode_node(sqz_network *net, Node *node, void *state, float *scratch) {
    sqz_error error = SQZ_OK;
    if (node->weight) {
        float *to = node->op == CONV ? scratch : node->weights;
        float *rest = node->op == CONV ? scratch + ((node->weight->weights + 3) & ~3u) : scratch;
        error = sqz_tensor_decode(node->weight, to, state, rest);
        if (error) return refused(net, error, node->weight->name);
        if (node->op == CONV) sqz_pack_weights(node, scratch, node->weights);
    }
    if (node->addend) {
        error = sqz_tensor_decode(node->addend, node->biases, state, scratch);
        if (error) return refused(net, error, node->addend->name);
    }
    return error;
}

sqz_error sqz_read_weights(sqz_network *net, Memory *memory) {
    Plan *plan = net->plan;
    u64 state = 0, scratch = 0;
    for (u32 i = 0; i < plan->node_count; i++) {
        Node *node = plan->nodes + i;
        add_scratch(node, &state, &scratch);
        if (node->weight)
            node->weights = allot(memory, node->op == CONV ? 4 * sqz_packed_weights(node)
                                                           : 4 * (u64)node->weight->weights);
        if (node->addend) node->biases = allot(memory, 4 * (u64)node->addend->weights);
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
