/* From the ONNX graph to a plan: nodes in order, every name found, every shape checked. */
#include "graph.h"
#include "attributes.h"
#include "onnx.h"
#include "operators.h"
#include "proto.h"

sqz_error sqz_graph_count(Span model, u32 *nodes, u32 *inputs) {
    Field f, g;
    Span graph;
    int more, inner;
    *nodes = *inputs = 0;
    if (!sqz_find_field(model, MODEL_GRAPH, &graph)) return SQZ_GRAPH;
    while ((more = sqz_next_field(&graph, &f)) > 0) {
        if (f.number != GRAPH_NODE) continue;
        if (++*nodes > MOST_NODES) return SQZ_LENGTH;
        while ((inner = sqz_next_field(&f.bytes, &g)) > 0)
            if (g.number == NODE_INPUT && ++*inputs > MOST_INPUTS) return SQZ_LENGTH;
        if (inner < 0) return SQZ_GRAPH;
    }
    return more < 0 || !*nodes ? SQZ_GRAPH : SQZ_OK;
}

/* Inputs, output and operator of a node; the memory of the plan has room for them. */
static sqz_error read_names(Reader *r, Span message) {
    Field f;
    Span output = {message.at, message.at};
    u32 outputs = 0;
    while (sqz_next_field(&message, &f) > 0) {
        if (f.number == NODE_INPUT && r->inputs++ < 3) r->names[r->inputs - 1] = f.bytes;
        if (f.number == NODE_OUTPUT && size_of(f.bytes) && !outputs++) output = f.bytes;
        if (f.number == NODE_OPERATOR) r->operator = f.bytes;
        if (f.number == NODE_DOMAIN && size_of(f.bytes) && !is(f.bytes, "ai.onnx"))
            return refused(r->net, SQZ_UNSUPPORTED, f.bytes);
    }
    if (outputs != 1) return refused(r->net, outputs ? SQZ_UNSUPPORTED : SQZ_GRAPH, r->operator);
    if (sqz_find_value(r->net->plan, output) != ABSENT) return refused(r->net, SQZ_GRAPH, output);
    r->out->name = output;
    return SQZ_OK;
}

static sqz_error plan_node(sqz_network *net, Span graph, Span message) {
    Plan *plan = net->plan;
    Node *node = plan->nodes + plan->node_count;
    Span nothing = {message.at, message.at};
    Reader r = {net, graph, message, nothing, {nothing, nothing, nothing}, 0, node, NULL,
                plan->values + plan->value_count};
    sqz_error error = read_names(&r, message);
    if (error) return error;

    if ((error = sqz_find_operator(&r))) return refused(net, error, r.operator);
    u32 in = sqz_find_value(plan, r.names[0]);
    if (in == ABSENT) return refused(net, SQZ_GRAPH, r.names[0]);

    Attributes a = {{0, 0}, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 0, 0, 0, 1, 0.0f, 0.0f, 1.0f, 0, 0, 0};
    /* Dropout's seed and Reshape's allowzero change nothing here. */
    if (!(node->op == SAME && !is(r.operator, "Flatten")) &&
        !sqz_read_attributes(message, &a))
        return refused(net, SQZ_UNSUPPORTED, r.operator);
    for (u32 i = 0; i < 2; i++) {
        node->stride[i] = a.stride[i];
        node->before[i] = a.pads[i];
        node->after[i] = a.pads[2 + i];
        node->dilation[i] = a.dilation[i];
    }
    node->ceil = a.ceil;
    node->inputs = 1;
    node->first_input = plan->input_count;
    node->output = plan->value_count;
    plan->inputs[node->first_input] = in;
    r.in = plan->values + in;
    error = sqz_plan_operator(&r, &a);
    if (error) return net->detail.bytes ? error : refused(net, error, r.operator);
    plan->input_count += node->inputs;
    plan->value_count++;
    plan->node_count++;
    return SQZ_OK;
}

/* ---- the graph as a whole ---- */

/* The image: its name; its shape must be what the preprocessing gives. */
static sqz_error read_input(sqz_network *net, Span info) {
    Plan *plan = net->plan;
    Span name, type, tensor, shape;
    Field f, dim;
    u64 expected[4] = {0, (u64)net->channels, (u64)net->size, (u64)net->size};
    u32 axes = 0;
    /* ValueInfoProto.name, .type, TypeProto.tensor_type, TypeProto.Tensor.shape */
    if (!sqz_find_field(info, 1, &name) || !sqz_find_field(info, 2, &type) ||
        !sqz_find_field(type, 1, &tensor) || !sqz_find_field(tensor, 2, &shape))
        return SQZ_GRAPH;
    while (sqz_next_field(&shape, &f) > 0) { /* TensorShapeProto.dim, .dim_value */
        if (f.number != 1) continue;
        if (axes >= 4) return SQZ_GRAPH;
        while (sqz_next_field(&f.bytes, &dim) > 0)
            if (dim.number == 1 && axes && dim.value != expected[axes]) return SQZ_GRAPH;
        axes++;
    }
    if (axes != 4 || plan->value_count) return SQZ_GRAPH;
    plan->values[0].name = name;
    if (!sqz_set_shape(plan->values, expected[1], expected[2], expected[3])) return SQZ_LENGTH;
    plan->values[0].axes = 4;
    plan->value_count = 1;
    return SQZ_OK;
}

sqz_error sqz_graph_plan(sqz_network *net, Span model) {
    Plan *plan = net->plan;
    Span graph, name;
    Field f;
    sqz_error error = SQZ_OK;
    plan->output = ABSENT;
    if (!sqz_find_field(model, MODEL_GRAPH, &graph)) return SQZ_GRAPH;
    for (Span s = graph; !error && sqz_next_field(&s, &f) > 0;)
        if (f.number == GRAPH_INPUT) error = read_input(net, f.bytes);
    if (error) return error;
    if (!plan->value_count) return SQZ_GRAPH;
    for (Span s = graph; !error && sqz_next_field(&s, &f) > 0;)
        if (f.number == GRAPH_NODE) error = plan_node(net, graph, f.bytes);
    if (error) return error;
    for (Span s = graph; plan->output == ABSENT && sqz_next_field(&s, &f) > 0;) {
        if (f.number != GRAPH_OUTPUT) continue;
        if (!sqz_find_field(f.bytes, 1, &name)) return SQZ_GRAPH;
        plan->output = sqz_find_value(plan, name);
        if (plan->output == ABSENT) return refused(net, SQZ_GRAPH, name);
    }
    if (plan->output == ABSENT) return SQZ_GRAPH;
    net->classes = (i32)elements(plan->values + plan->output);

    return SQZ_OK;
}
