/* Memory of a run: who lies where, and from when to when. */
#include "place.h"
#include "convolve.h"
#include "depthwise.h"
#include "layers8.h"

/* The value whose memory a value lies in, and how many floats from its start. */
static Value *root_of(const Plan *plan, u32 value, u32 *offset) {
    *offset = 0;
    while (plan->values[value].root != value) {
        *offset += plan->values[value].offset;
        value = plan->values[value].root;
    }
    return plan->values + value;
}

/* Whether nothing but one node reads the memory of a value, which is not the image's. */
static int only_reader(const Plan *plan, u32 value) {
    while (value && plan->values[value].uses == 1 && plan->values[value].root != value)
        value = plan->values[value].root;
    return value && plan->values[value].uses == 1;
}

/* Nodes that do nothing, and a ReLU behind what can do it as well, give what they are given; what is
 * done to one number after another is done where they lie, if nobody else wants them. A value that
 * goes into a Concat lies in the Concat's memory from the start. */
static void share_memory(Plan *plan) {
    for (u32 i = 0; i < plan->node_count; i++) {
        Node *node = plan->nodes + i;
        u32 in = plan->inputs[node->first_input];
        plan->values[node->output].maker = i;
        if (in == ABSENT) continue;
        if (node->op == UNARY && node->kind == RELU && in) {
            Node *before = plan->nodes + plan->values[in].maker;
            int can = !before->codes && (before->op == CONV || before->op == DENSE_LAYER || before->op == BINARY);
            if (can && plan->values[in].uses == 1) {
                before->relu = 1;
                node->op = SAME;
            }
        }
        if (node->op == SAME || (node->op == UNARY && only_reader(plan, in)))
            plan->values[node->output].root = in;
    }
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        u32 at = 0, offset;
        if (node->op != CONCAT) continue;
        for (u32 j = 0; j < node->axis; j++) at |= plan->values[node->output].shape[j] != 1;
        if (at) continue; /* in rows: the parts do not lie as a whole */
        for (u32 j = 0; j < node->inputs; j++) {
            u32 part = plan->inputs[node->first_input + j];
            Value *root = root_of(plan, part, &offset);
            u32 index = (u32)(root - plan->values);
            if (index && !offset && root->count == plan->values[part].count &&
                index != node->output) {
                root->root = node->output;
                root->offset = at;
            }
            at += plan->values[part].count;
        }
    }
}

static void find_lifetimes(Plan *plan) {
    u32 offset;
    for (u32 i = 0; i < plan->value_count; i++) plan->values[i].first = ABSENT;
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        Value *out = root_of(plan, node->output, &offset);
        out->first = u32_min(out->first, i);
        out->last = i; /* the nodes come in order */
        for (u32 j = 0; j < node->inputs; j++)
            if (plan->inputs[node->first_input + j] != ABSENT)
                root_of(plan, plan->inputs[node->first_input + j], &offset)->last = i;
    }
    root_of(plan, plan->output, &offset)->last = plan->node_count;
}

static u64 aligned(u64 bytes) { return (bytes + 63) & ~(u64)63; }

static u64 bytes_of(const Value *value) { return aligned((value->coded ? 1 : 4) * (u64)value->count); }

/* Each value at the lowest place that is free as long as it lives. */
static void place_values(Plan *plan) {
    for (u32 i = 1; i < plan->value_count; i++) {
        Value *value = plan->values + i;
        if (value->root != i || value->first == ABSENT) continue; /* one that nobody makes */
        for (u32 j = 1; j < i;) { /* from the start again whenever it had to move */
            const Value *other = plan->values + j++;
            if (other->root != j - 1 || other->first == ABSENT || other->last < value->first || value->last < other->first)
                continue;
            u64 end = other->place + bytes_of(other);
            if (value->place >= end || other->place >= value->place + bytes_of(value)) continue;
            value->place = end;
            j = 1;
        }
        u64 end = value->place + bytes_of(value);
        if (end > plan->activation_bytes) plan->activation_bytes = end;
    }
}

void sqz_place_values(Plan *plan) {
    for (u32 i = 0; i < plan->value_count; i++) plan->values[i].root = i;
    for (u32 i = 0; i < plan->input_count; i++) {
        if (plan->inputs[i] != ABSENT) plan->values[plan->inputs[i]].uses++;
    }
    plan->values[plan->output].uses++;
    share_memory(plan);
    find_lifetimes(plan);
    place_values(plan);
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        int packs = node->op == CONV && !node->codes && !sqz_is_depthwise(node);
        u64 bytes = 0;
#if FLOAT_LAYERS
        if (packs) bytes = 4 * sqz_packed_pixels(node);
#endif
#if INT8_LAYERS
        if (!packs && node->codes) bytes = sqz_scratch8(plan, node);
#endif
        if (aligned(bytes) > plan->scratch_bytes) plan->scratch_bytes = aligned(bytes);
    }
}
