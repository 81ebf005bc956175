/* From the ONNX graph to a plan: nodes in order, every name found, every shape checked. */
#include "graph.h"
#include "attributes.h"
#include "names.h"
#include "onnx.h"
#include "operators.h"
#include "proto.h"
#include "settings.h"
#include "shapes.h"
#include "text.h"

/* ---- names ---- */

static int is_new(Plan *plan, Span name) {
    if (!STRICT) return 1;
    return size_of(name) && sqz_find_value(plan, name) == ABSENT && !sqz_find_record(plan, name);
}

static sqz_error read_initializers(sqz_network *net, Span graph) {
    Plan *plan = net->plan;
    Field f;
    while (sqz_next_field(&graph, &f) > 0) {
        Record record;
        static const Record none;
        if (f.number != GRAPH_INITIALIZER) continue;
        record = none;
        sqz_read_setting(f.bytes, &record);
        if (!is_new(plan, record.name)) return sqz_refused(net, SQZ_GRAPH, record.name);
        plan->records[plan->record_count++] = record;
    }
    for (u32 i = 0; i < plan->record_count; i++) plan->records[i].used = 0;
    return SQZ_OK;
}

/* ---- one node ---- */

/* Its operator and inputs, of which each must be known; optional ones may be left out. */
static sqz_error read_inputs(Reader *r) {
    Field f;
    u32 place = 0;
    for (Span rest = r->message; sqz_next_field(&rest, &f) > 0;) {
        if (f.number == NODE_OPERATOR) r->operator = f.bytes;
        if (f.number == NODE_NAME) r->node->name = f.bytes;
    }
    for (Span rest = r->message; sqz_next_field(&rest, &f) > 0;) {
        if (f.number != NODE_INPUT) continue;
        u32 i = place++;
        if (!size_of(f.bytes)) {
            if (!i || sqz_is(r->operator, "Concat")) return SQZ_GRAPH;
            continue;
        }
        r->inputs = place; /* those left out at the end do not count */
        u32 value = sqz_find_value(r->plan, f.bytes);
        const Record *record = value == ABSENT ? sqz_find_record(r->plan, f.bytes) : NULL;
        if (value == ABSENT && !record) return sqz_refused(r->net, SQZ_GRAPH, f.bytes);
        if (i >= MOST_NAMED) continue;
        r->names[i] = f.bytes;
        r->values[i] = value;
        r->records[i] = record;
    }
    return SQZ_OK;
}

/* Plans one output of a node. */
static sqz_error plan_output(Reader *r, Span output) {
    Plan *plan = r->plan;
    Node *node = r->node = plan->nodes + plan->node_count;
    sqz_error error;
    if (!is_new(plan, output)) return sqz_refused(r->net, SQZ_GRAPH, output);
    r->out = plan->values + plan->value_count;
    r->out->name = output;
    r->out->hash = sqz_hash(output);
    if ((error = sqz_find_operator(r))) return error;
    node->inputs = 1;
    node->first_input = plan->input_count;
    node->output = plan->value_count;
    plan->inputs[node->first_input] = r->values[0];
    r->in = r->values[0] == ABSENT ? NULL : plan->values + r->values[0];
    if ((error = sqz_plan_operator(r))) return error;
    for (u32 i = 0; i < MOST_CONSTANTS; i++)
        if (node->constant[i] && !node->constant[i]->weights) return SQZ_GRAPH;
    u64 most = (u64)plan->images * MOST_WEIGHTS;
    if (r->out->count > most || node->padded > most) return SQZ_LENGTH;
    plan->input_count += node->inputs;
    plan->value_count++;
    plan->node_count++;
    return SQZ_OK;
}

static sqz_error plan_node(sqz_network *net, Span message) {
    Plan *plan = net->plan;
    Node *node = plan->nodes + plan->node_count;
    Field f;
    Reader r;
    u32 outputs = 0, place = 0;
    r.net = net;
    r.plan = plan;
    r.message = message;
    r.operator.at = r.operator.end = message.at;
    r.inputs = 0;
    r.node = node;
    node->name = r.operator;
    for (u32 i = 0; i < MOST_NAMED; i++) {
        r.names[i].at = r.names[i].end = message.at;
        r.records[i] = NULL;
        r.values[i] = ABSENT;
    }
    sqz_error error = read_inputs(&r);
    Span name = node->name;
    for (Span rest = message; sqz_next_field(&rest, &f) > 0;)
        if (f.number == NODE_OUTPUT) {
            place++;
            if (!size_of(f.bytes)) continue;
            outputs++;
            r.parts = place;
            if (!size_of(name)) name = f.bytes;
        }
    if (!error && !outputs) error = SQZ_UNSUPPORTED;
    if (!error && r.parts != 1 && !sqz_is(r.operator, "Split")) error = SQZ_UNSUPPORTED;
    r.part = 0;
    for (Span rest = message; !error && sqz_next_field(&rest, &f) > 0;) {
        if (f.number != NODE_OUTPUT) continue;
        plan->nodes[plan->node_count].name = name;
        if (size_of(f.bytes)) error = plan_output(&r, f.bytes);
        r.part++;
    }
    if (!error) return SQZ_OK;
    net->node.at = (const char *)name.at;
    net->node.bytes = size_of(name);
    return net->detail.bytes ? error : sqz_refused(net, error, r.operator);
}

/* ---- the graph as a whole ---- */

/* Whether sizes that are stated of an input or output are those that a value has; `open` tells
 * whether they leave the number of images open. */
static int fits_stated(Span info, const Value *value, int needed, int *open) {
    Span type, tensor, shape;
    Field f, dim;
    u32 axes = 0;
    int stated = needed;
    *open = STRICT;
    if (!STRICT) return 1;
    sqz_find_field(info, VALUE_TYPE, &type);
    sqz_find_field(type, TYPE_TENSOR, &tensor);
    for (Span rest = tensor; sqz_next_field(&rest, &f) > 0;) stated |= f.number == TYPE_SHAPE;
    sqz_find_field(tensor, TYPE_SHAPE, &shape);
    while (sqz_next_field(&shape, &f) > 0) {
        if (axes == value->axes) return 0;
        while (sqz_next_field(&f.bytes, &dim) > 0) {
            if (dim.number != DIM_VALUE) continue;
            if (!axes) *open = 0;
            if (dim.value != value->shape[axes]) return 0;
        }
        axes++;
    }
    return !stated || axes == value->axes;
}

/* The image: its name; its shape must be what the preprocessing gives. */
static sqz_error read_input(sqz_network *net, Span info, int *open) {
    Plan *plan = net->plan;
    Value *image = plan->values;
    u64 shape[4] = {plan->images, (u64)net->channels, (u64)net->size, (u64)net->size};
    sqz_find_field(info, VALUE_NAME, &image->name);
    image->hash = sqz_hash(image->name);
    if (!is_new(plan, image->name) || !sqz_set_shape(image, 4, shape)) return SQZ_GRAPH;
    plan->value_count = 1;
    return fits_stated(info, image, 1, open) ? SQZ_OK : SQZ_GRAPH;
}

/* Plans all nodes for so many images at once. */
static sqz_error plan_nodes(sqz_network *net, Span graph, u32 images, int *open) {
    static const Node no_node;
    static const Value no_value;
    Plan *plan = net->plan;
    Span info, name;
    Field f;
    int ignored;
    for (u32 i = 0; i < plan->node_count; i++) plan->nodes[i] = no_node;
    for (u32 i = 0; i < plan->value_count; i++) plan->values[i] = no_value;
    plan->node_count = plan->value_count = plan->input_count = 0;
    plan->images = images;
    plan->work = net->macs = 0;
    sqz_find_field(graph, GRAPH_INPUT, &info);
    sqz_error error = read_input(net, info, open);
    if (error) return error;
    for (u32 i = 0; i < plan->record_count; i++) plan->records[i].used = 0;
    for (Span s = graph; !error && sqz_next_field(&s, &f) > 0;)
        if (f.number == GRAPH_NODE) error = plan_node(net, f.bytes);
    if (error) return error;
    sqz_find_field(graph, GRAPH_OUTPUT, &info);
    sqz_find_field(info, VALUE_NAME, &name);
    plan->output = sqz_find_value(plan, name);
    if (plan->output == ABSENT || !plan->output) return sqz_refused(net, SQZ_GRAPH, name);
    const Value *output = plan->values + plan->output;
    if (!output->axes || output->shape[0] != images || !fits_stated(info, output, 0, &ignored))
        return sqz_refused(net, SQZ_GRAPH, name);
    return SQZ_OK;
}

/* The most floats that live at once, each from its node to the last that reads it. */
static void count_living(Plan *plan) {
    u64 alive = plan->values[0].count;
    plan->most_alive = alive;
    for (u32 i = 0; i < plan->value_count; i++) plan->values[i].last = ABSENT;
    for (u32 i = 0; i < plan->node_count; i++)
        for (u32 j = 0; j < plan->nodes[i].inputs; j++) {
            u32 value = plan->inputs[plan->nodes[i].first_input + j];
            if (value != ABSENT) plan->values[value].last = i;
        }
    plan->values[plan->output].last = plan->node_count;
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        if (plan->values[node->output].last != ABSENT) alive += plan->values[node->output].count;
        if (alive + node->padded > plan->most_alive) plan->most_alive = alive + node->padded;
        for (u32 j = 0; j < node->inputs; j++) {
            u32 value = plan->inputs[node->first_input + j];
            if (value == ABSENT || plan->values[value].last != i) continue;
            alive -= plan->values[value].count;
            plan->values[value].last = ABSENT;
        }
    }
}

sqz_error sqz_graph_plan(sqz_network *net, const Counts *counts, u32 names) {
    Plan *plan = net->plan;
    int open;
    plan->opset = counts->opset;
    sqz_error error = read_initializers(net, counts->graph);
    if (!error) error = plan_nodes(net, counts->graph, 1, &open);
    if (error) return error;
    for (u32 i = 0; i < plan->record_count && STRICT; i++)
        if (!plan->records[i].used) return sqz_refused(net, SQZ_GRAPH, plan->records[i].name);
    u32 classes = plan->values[plan->output].count;
    if (open) { /* then each image is by itself */
        error = plan_nodes(net, counts->graph, 2, &open);
        if (!error && plan->values[plan->output].count != 2 * classes) error = SQZ_GRAPH;
        if (!error) error = plan_nodes(net, counts->graph, 1, &open);
        if (error) return error;
    }
    if (STRICT) count_living(plan);
    net->classes = (i32)classes;
    return names && names != classes ? SQZ_GRAPH : SQZ_OK;
}
