/* Which values are uint8, as Python has it (runtime/int8.py), and where they become floats.
 *
 * What goes in and out of layers is codes, and what only moves between them. Everything else works
 * on floats: codes are turned into them before, and back behind.
 */
#include "int8.h"
#include "codes.h"
#include "metadata.h"
#include "text.h"

#if INT8_LAYERS

enum { OLDEST_OPSET = 13 };

static int is_layer(const Node *node) {
    const Record *weight = node->constant[0], *bias = node->constant[1];
    if (node->op != CONV && node->op != DENSE_LAYER) return 0;
    if (node->op == DENSE_LAYER && (node->alpha != 1.0f || node->beta != 1.0f)) return 0;
    return weight->coder != IN_GRAPH && weight->used == 1 &&
           (!bias || (bias->coder != IN_GRAPH && bias->used == 1));
}

static int is_activation(const Node *node) {
    return node->op == UNARY && (node->kind == RELU || node->kind == CLIP);
}

/* The layer whose output only this activation uses, or NULL. */
static Node *layer_before(const Plan *plan, const Node *node) {
    u32 in = plan->inputs[node->first_input];
    if (!is_activation(node) || !in || plan->values[in].uses != 1) return NULL;
    Node *before = plan->nodes + plan->values[in].maker;
    return is_layer(before) ? before : NULL;
}

/* Whether all inputs of a node are values that are codes. */
static int all_coded(const Plan *plan, const Node *node) {
    int all = 1;
    for (u32 j = 0; j < node->inputs; j++) {
        u32 in = plan->inputs[node->first_input + j];
        all &= in != ABSENT && plan->values[in].coded;
    }
    return all;
}

static void find_coded(Plan *plan) {
    Value *values = plan->values;
    for (u32 i = 0; i < plan->value_count; i++) {
        values[i].uses = values[i].coded = 0;
        values[i].range = i;
    }
    for (u32 i = 0; i < plan->input_count; i++)
        if (plan->inputs[i] != ABSENT) values[plan->inputs[i]].uses++;
    values[plan->output].uses++;
    for (u32 i = 0; i < plan->node_count; i++) values[plan->nodes[i].output].maker = i;
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i, *layer = layer_before(plan, node);
        if (is_layer(node)) values[plan->inputs[node->first_input]].coded = values[node->output].coded = 1;
        if (!layer) continue;
        values[layer->output].coded = 0;
        values[node->output].coded = 1;
    }
    for (u32 i = plan->node_count; i-- > 0;) {
        const Node *node = plan->nodes + i;
        if (!values[node->output].coded || !(node->moves || node->adds)) continue;
        for (u32 j = 0; j < node->inputs; j++) {
            u32 in = plan->inputs[node->first_input + j];
            if (in != ABSENT) values[in].coded = 1;
        }
    }
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        if (node->moves && all_coded(plan, node)) values[node->output].coded = 1;
    }
    values[plan->output].coded = 0;
}

static void join(Plan *plan, u32 a, u32 b) {
    Value *values = plan->values;
    u32 first = u32_min(values[a].range, values[b].range), last = values[a].range + values[b].range - first;
    if (!values[a].coded || !values[b].coded || first == last) return;
    for (u32 i = last; i < plan->value_count; i++)
        if (values[i].range == last) values[i].range = first;
}

static sqz_error find_ranges(sqz_network *net) {
    Plan *plan = net->plan;
    Value *values = plan->values;
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        for (u32 j = 0; j < node->inputs && node->moves; j++)
            join(plan, node->output, plan->inputs[node->first_input + j]);
    }
    for (u32 i = 0; i < plan->value_count; i++) values[i].step = 0.0f;
    sqz_read_activations(net, plan);
    for (u32 i = 0; i < plan->value_count; i++) {
        if (!values[i].coded) continue;
        const Value *first = values + values[i].range;
        if (!(first->step > 0.0f)) return sqz_refused(net, SQZ_GRAPH, first->name);
        values[i].step = first->step;
        values[i].zero = first->zero;
    }
    return SQZ_OK;
}

/* ---- the new nodes ---- */

typedef struct {
    Plan *plan;
    Node *nodes;
    Value *values;
    u32 *inputs, *floats, *codes; /* by old value: where it is as floats and as codes, or ABSENT */
    u32 node_count, value_count, input_count;
} Writer;

static u32 new_value(Writer *w, u32 like, u32 coded) {
    if (w->values) {
        w->values[w->value_count] = w->values[like];
        w->values[w->value_count].coded = coded;
    }
    return w->value_count++;
}

static void add_node(Writer *w, const Node *node, u32 output) {
    if (w->nodes) {
        Node *to = w->nodes + w->node_count;
        *to = *node;
        to->output = output;
        to->first_input = w->input_count;
    }
    w->node_count++;
}

static void add_input(Writer *w, u32 value) {
    if (w->inputs) w->inputs[w->input_count] = value;
    w->input_count++;
}

static void convert(Writer *w, Operator op, u32 from, u32 to, Span name) {
    static const Node none;
    Node node = none;
    node.op = op;
    node.inputs = 1;
    node.name = name;
    add_node(w, &node, to);
    add_input(w, from);
}

/* Where a value is as codes or as floats; it is converted where it is not yet. */
static u32 as(Writer *w, u32 value, u32 coded, Span name) {
    u32 *here = coded ? w->codes + value : w->floats + value;
    if (*here == ABSENT) {
        *here = new_value(w, value, coded);
        convert(w, coded ? TO_CODES : FROM_CODES, coded ? w->floats[value] : w->codes[value], *here, name);
    }
    return *here;
}

/* Whether a node works on codes. */
static int on_codes(const Plan *plan, const Node *node) {
    const Value *out = plan->values + node->output;
    if (is_layer(node)) return 1;
    if (node->op == AVERAGE_POOL || (node->op == REDUCE && node->kind == MEAN)) return all_coded(plan, node);
    return (node->moves || node->adds) && out->coded && all_coded(plan, node);
}

/* The codes that an activation keeps. */
static void keep(Node *layer, const Node *activation, const Value *out) {
    layer->low = 0;
    layer->high = 255;
    if (!activation) return;
    layer->low = activation->kind == RELU ? out->zero : sqz_code(activation->alpha, out->step, out->zero);
    if (activation->kind == CLIP) layer->high = sqz_code(activation->beta, out->step, out->zero);
}

static void rewrite(Writer *w) {
    const Plan *plan = w->plan;
    w->node_count = w->input_count = 0;
    w->value_count = plan->value_count;
    for (u32 i = 0; i < plan->value_count; i++) w->floats[i] = w->codes[i] = ABSENT;
    w->floats[0] = 0; /* the image comes as floats */
    if (plan->values->coded) {
        as(w, 0, 1, plan->values->name);
        w->floats[0] = ABSENT; /* others see it rounded */
    }
    for (u32 i = 0; i < plan->node_count; i++) {
        Node node = plan->nodes[i];
        const Value *out = plan->values + node.output;
        const Node *layer = layer_before(plan, &node), *activation = NULL;
        u32 inputs[2] = {ABSENT, ABSENT}, first = node.first_input, name = node.output;
        if (layer && out->coded) continue; /* the layer does it */
        node.codes = (u32)on_codes(plan, &node);
        if (node.codes && is_layer(&node) && !out->coded && out->uses == 1) {
            /* Its output may be that of the activation behind it, which comes later. */
            for (u32 j = i + 1; j < plan->node_count; j++)
                if (plan->inputs[plan->nodes[j].first_input] == node.output &&
                    layer_before(plan, plan->nodes + j) && plan->values[plan->nodes[j].output].coded)
                    activation = plan->nodes + j;
            if (activation) out = plan->values + (name = activation->output);
        }
        keep(&node, activation, out);
        for (u32 j = 0; j < node.inputs; j++) {
            u32 in = plan->inputs[first + j];
            in = in == ABSENT ? in : as(w, in, node.codes, node.name);
            if (j < 2) inputs[j] = in;
        }
        int direct = node.codes || !out->coded;
        u32 to = direct ? name : new_value(w, name, 0);
        (out->coded && direct ? w->codes : w->floats)[name] = to;
        add_node(w, &node, to);
        for (u32 j = 0; j < node.inputs; j++) {
            u32 in = j < 2 ? inputs[j] : plan->inputs[first + j];
            add_input(w, j < 2 ? in : (node.codes ? w->codes : w->floats)[in]);
        }
        if (direct) continue;
        w->codes[name] = name;
        convert(w, TO_CODES, to, name, node.name);
        w->floats[name] = ABSENT; /* others see it rounded */
    }
}

sqz_error sqz_plan_int8(sqz_network *net, Memory *memory) {
    Plan *plan = net->plan;
    static const Value none;
    Writer w;
    if (plan->opset < OLDEST_OPSET) return SQZ_UNSUPPORTED;
    find_coded(plan);
    sqz_error error = find_ranges(net);
    if (error) return error;
    for (u32 i = 0; i < plan->node_count; i++) /* of what is an output of the network as well, or in float */
        if (is_layer(plan->nodes + i) ? !all_coded(plan, plan->nodes + i)
                                      : !FLOAT_LAYERS && plan->nodes[i].op <= DENSE_LAYER)
            return sqz_refused(net, SQZ_UNSUPPORTED, plan->nodes[i].name);
    w.plan = plan;
    w.nodes = NULL;
    w.values = NULL;
    w.inputs = NULL;
    w.floats = allot(memory, 2 * (u64)plan->value_count * sizeof(u32));
    if (!w.floats) return SQZ_MEMORY;
    w.codes = w.floats + plan->value_count;
    rewrite(&w); /* to count */
    w.nodes = allot(memory, w.node_count * (u64)sizeof(Node));
    w.values = allot(memory, w.value_count * (u64)sizeof(Value));
    w.inputs = allot(memory, w.input_count * (u64)sizeof(u32));
    if (!w.nodes || !w.values || !w.inputs) return SQZ_MEMORY;
    for (u32 i = 0; i < w.value_count; i++) w.values[i] = i < plan->value_count ? plan->values[i] : none;
    w.values[0].coded = 0;
    rewrite(&w);
    for (u32 i = 0; i < w.value_count; i++) w.values[i].uses = 0;
    plan->nodes = w.nodes;
    plan->values = w.values;
    plan->inputs = w.inputs;
    plan->node_count = w.node_count;
    plan->value_count = w.value_count;
    plan->input_count = w.input_count;
    return SQZ_OK;
}

#endif
