/* From the ONNX graph to a plan: nodes in order, shapes checked, every value at its place. */
#include "internal.h"

/* ---- protocol buffers: a message is fields, each a number and a value ---- */

typedef struct {
    u32 number;
    u64 value;  /* of a varint, or the bits of a float32 */
    Span bytes; /* of text and messages; else empty */
} Field;

/* The next field: 1, or 0 at the end, or -1 where the bytes are no message. */
static int next_field(Span *message, Field *field) {
    u64 key, bytes;
    if (message->at == message->end) return 0;
    if (!sqz_varint(message, 0xffffffffu, &key)) return -1;
    field->number = (u32)key >> 3;
    field->value = 0;
    field->bytes.at = field->bytes.end = message->at;
    switch (key & 7) {
    case 0: return sqz_varint(message, ~(u64)0, &field->value) ? 1 : -1;
    case 2:
        if (!sqz_varint(message, 0xffffffffu, &bytes) || bytes > size_of(*message)) return -1;
        break;
    case 1: bytes = 8; break;
    case 5: bytes = 4; break;
    default: return -1;
    }
    if (bytes > size_of(*message)) return -1;
    field->bytes.at = message->at;
    field->bytes.end = message->at += bytes;
    if ((key & 7) == 5) field->value = little32(field->bytes.at);
    return 1;
}

/* The numbers of ONNX's fields that matter here (onnx.proto3). */
enum { MODEL_GRAPH = 7 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_OPERATOR = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };
enum { ATTRIBUTE_NAME = 1, ATTRIBUTE_FLOAT = 2, ATTRIBUTE_INT = 3, ATTRIBUTE_TEXT = 4,
       ATTRIBUTE_INTS = 8 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_INTS = 7, TENSOR_NAME = 8, TENSOR_RAW = 9,
       INT64 = 7 };

/* The only field of a number, empty where there is none; 0 where the message is broken. */
static int find_field(Span message, u32 number, Span *found) {
    Field f;
    int more;
    found->at = found->end = message.at;
    while ((more = next_field(&message, &f)) > 0)
        if (f.number == number) *found = f.bytes;
    return more == 0;
}

static int same_text(Span a, Span b) {
    if (size_of(a) != size_of(b)) return 0;
    while (a.at < a.end)
        if (*a.at++ != *b.at++) return 0;
    return 1;
}

static int is(Span text, const char *word) {
    for (; text.at < text.end; text.at++, word++)
        if (!*word || *text.at != (u8)*word) return 0;
    return !*word;
}

static sqz_error refused(sqz_network *net, sqz_error error, Span what) {
    net->detail.at = (const char *)what.at;
    net->detail.bytes = size_of(what);
    return error;
}

/* ---- counting ---- */

sqz_error sqz_graph_count(sqz_network *net, Span model, u32 *nodes, u32 *inputs) {
    Field f, g;
    Span graph;
    int more, inner;
    (void)net;
    *nodes = *inputs = 0;
    if (!find_field(model, MODEL_GRAPH, &graph)) return SQZ_GRAPH;
    while ((more = next_field(&graph, &f)) > 0) {
        if (f.number != GRAPH_NODE) continue;
        if (++*nodes > MOST_NODES) return SQZ_LENGTH;
        while ((inner = next_field(&f.bytes, &g)) > 0)
            if (g.number == NODE_INPUT && ++*inputs > MOST_INPUTS) return SQZ_LENGTH;
        if (inner < 0) return SQZ_GRAPH;
    }
    return more < 0 || !*nodes ? SQZ_GRAPH : SQZ_OK;
}

/* ---- names ---- */

#define ABSENT 0xffffffffu

static u32 find_value(const Plan *plan, Span name) {
    for (u32 i = 0; i < plan->value_count; i++)
        if (same_text(plan->values[i].name, name)) return i;
    return ABSENT;
}

static const Record *find_record(const Plan *plan, Span name) {
    for (u32 i = 0; i < plan->record_count; i++)
        if (same_text(plan->records[i].name, name)) return plan->records + i;
    return NULL;
}

/* The initializer of a name within the graph; empty where there is none. */
static Span find_initializer(Span graph, Span name) {
    Field f;
    Span found = {graph.at, graph.at}, own;
    while (next_field(&graph, &f) > 0)
        if (f.number == GRAPH_INITIALIZER && find_field(f.bytes, TENSOR_NAME, &own) &&
            same_text(own, name))
            found = f.bytes;
    return found;
}

/* ---- attributes ---- */

/* All that the operators below have; what is absent has ONNX's default. */
typedef struct {
    u32 kernel[2], stride[2], pads[4], dilation[2];
    u32 group, ceil, transpose_a, transpose_b, size;
    i64 axis;
    float alpha, beta, bias;
    int has_axis, has_alpha, has_beta;
} Attributes;

enum { MOST_PIXELS = 1 << 16 };

/* Integers of an attribute or a tensor, packed or one by one; returns how many, at most `most`. */
static u32 integers(Span message, u32 number, i64 *values, u32 most) {
    Field f;
    u32 count = 0;
    while (next_field(&message, &f) > 0) {
        if (f.number != number) continue;
        if (f.bytes.at == f.bytes.end) {
            if (count < most) values[count] = (i64)f.value;
            count++;
        }
        while (f.bytes.at < f.bytes.end) {
            u64 value;
            if (!sqz_varint(&f.bytes, ~(u64)0, &value)) return most + 1;
            if (count < most) values[count] = (i64)value;
            count++;
        }
    }
    return count;
}

static int sizes(Span attribute, u32 *values, u32 count, i64 least) {
    i64 found[4];
    if (integers(attribute, ATTRIBUTE_INTS, found, count) != count) return 0;
    for (u32 i = 0; i < count; i++) {
        if (found[i] < least || found[i] > MOST_PIXELS) return 0;
        values[i] = (u32)found[i];
    }
    return 1;
}

static int one_size(Span attribute, u32 *value, i64 least) {
    i64 found = 0;
    u32 count = integers(attribute, ATTRIBUTE_INT, &found, 1);
    *value = (u32)found;
    return count <= 1 && found >= least && found <= MOST_PIXELS;
}

static int real(Span attribute, float *value) {
    union {
        u32 bits;
        float value;
    } both = {0};
    Field f;
    while (next_field(&attribute, &f) > 0)
        if (f.number == ATTRIBUTE_FLOAT) both.bits = (u32)f.value;
    *value = both.value;
    return both.value - both.value == 0.0f;
}

/* Reads one attribute; 0 where it has a name or a value that is not supported. */
static int read_attribute(Span attribute, Span name, Attributes *a) {
    u32 zero;
    Span text;
    if (is(name, "kernel_shape")) return sizes(attribute, a->kernel, 2, 1);
    if (is(name, "strides")) return sizes(attribute, a->stride, 2, 1);
    if (is(name, "dilations")) return sizes(attribute, a->dilation, 2, 1);
    if (is(name, "pads")) return sizes(attribute, a->pads, 4, 0);
    if (is(name, "group")) return one_size(attribute, &a->group, 1);
    if (is(name, "ceil_mode")) return one_size(attribute, &a->ceil, 0);
    if (is(name, "transA")) return one_size(attribute, &a->transpose_a, 0);
    if (is(name, "transB")) return one_size(attribute, &a->transpose_b, 0);
    if (is(name, "size")) return one_size(attribute, &a->size, 1);
    if (is(name, "alpha")) return a->has_alpha = 1, real(attribute, &a->alpha);
    if (is(name, "beta")) return a->has_beta = 1, real(attribute, &a->beta);
    if (is(name, "bias")) return real(attribute, &a->bias);
    if (is(name, "axis")) {
        a->has_axis = 1;
        return integers(attribute, ATTRIBUTE_INT, &a->axis, 1) <= 1;
    }
    if (is(name, "auto_pad"))
        return find_field(attribute, ATTRIBUTE_TEXT, &text) && is(text, "NOTSET");
    if (is(name, "storage_order") || is(name, "count_include_pad"))
        return one_size(attribute, &zero, 0) && !zero;
    return 0;
}

/* Reads them all; what is not known is not ignored. */
static int read_attributes(Span message, Attributes *a) {
    Field f;
    Span name;
    int more;
    while ((more = next_field(&message, &f)) > 0) {
        if (f.number != NODE_ATTRIBUTE) continue;
        if (!find_field(f.bytes, ATTRIBUTE_NAME, &name) || !read_attribute(f.bytes, name, a))
            return 0;
    }
    return more == 0;
}

/* ---- shapes ---- */

static int set_shape(Value *value, u64 channels, u64 height, u64 width) {
    if (!channels || !height || !width || channels > MOST_WEIGHTS || height > MOST_WEIGHTS ||
        width > MOST_WEIGHTS || channels * height > MOST_WEIGHTS ||
        channels * height * width > MOST_WEIGHTS)
        return 0;
    value->shape[0] = (u32)channels;
    value->shape[1] = (u32)height;
    value->shape[2] = (u32)width;
    return 1;
}

static u32 elements(const Value *value) {
    return value->shape[0] * value->shape[1] * value->shape[2];
}


/* Height or width behind windows; 0 where not one fits. A last window that `ceil` lets reach past
 * the edge still has to start inside (as ONNX, Caffe and torch have it). */
static u32 windows(const Node *node, u32 size, u32 axis) {
    u64 span = (u64)node->dilation[axis] * (node->kernel[axis] - 1) + 1, stride = node->stride[axis];
    u64 padded = (u64)size + node->before[axis] + node->after[axis];
    if (padded < span) return 0;
    u64 count = (padded - span + (node->ceil ? stride - 1 : 0)) / stride + 1;
    if (node->ceil && (count - 1) * stride >= (u64)size + node->before[axis]) count--;
    return (u32)count;
}

static int windowed(const Node *node, const Value *in, Value *out, u32 channels) {
    return set_shape(out, channels, windows(node, in->shape[1], 0), windows(node, in->shape[2], 1));
}

/* ---- one node ---- */

typedef struct {
    sqz_network *net;
    Span graph, message, operator;
    Span names[3]; /* of its first inputs */
    u32 inputs;    /* how many it has */
    Node *node;
    Value *in, *out; /* of the values of its first input and of its output */
} Reader;

static int has_shape(const Record *record, u32 axes, const u32 *shape) {
    if (!record || record->axes != axes) return 0;
    for (u32 i = 0; i < axes; i++)
        if (record->shape[i] != shape[i]) return 0;
    return 1;
}

/* Weight and bias, which must be tensors of the file with `outputs` first. */
static sqz_error find_weights(Reader *r, u32 outputs) {
    Node *node = r->node;
    node->weight = find_record(r->net->plan, r->names[1]);
    if (!node->weight) return refused(r->net, SQZ_GRAPH, r->names[1]);
    if (r->inputs > 2 && size_of(r->names[2])) {
        node->addend = find_record(r->net->plan, r->names[2]);
        if (!has_shape(node->addend, 1, &outputs)) return refused(r->net, SQZ_GRAPH, r->names[2]);
    }
    return SQZ_OK;
}

static sqz_error plan_conv(Reader *r, const Attributes *a) {
    Node *node = r->node;
    const Record *weight = find_record(r->net->plan, r->names[1]);
    if (!weight) return refused(r->net, SQZ_GRAPH, r->names[1]);
    u32 shape[4] = {weight->shape[0], r->in->shape[0] / a->group, weight->shape[2],
                    weight->shape[3]};
    node->groups = a->group;
    for (u32 i = 0; i < 2 && weight->axes == 4; i++) {
        if (a->kernel[i] && a->kernel[i] != shape[2 + i]) return SQZ_GRAPH;
        node->kernel[i] = shape[2 + i];
        if (!shape[2 + i] || shape[2 + i] > MOST_PIXELS) return SQZ_GRAPH;
    }
    if (!has_shape(weight, 4, shape) || r->in->shape[0] % a->group || shape[0] % a->group)
        return refused(r->net, SQZ_GRAPH, r->names[1]);
    if (!windowed(node, r->in, r->out, shape[0])) return SQZ_LENGTH;
    r->net->macs += (u64)weight->weights * r->out->shape[1] * r->out->shape[2];
    if (r->net->macs >> 60) return SQZ_LENGTH;
    return find_weights(r, shape[0]);
}

static sqz_error plan_gemm(Reader *r, const Attributes *a) {
    const Record *weight = find_record(r->net->plan, r->names[1]);
    if (!weight) return refused(r->net, SQZ_GRAPH, r->names[1]);
    u32 out = weight->shape[a->transpose_b ? 0 : 1], features = elements(r->in);
    u32 shape[2] = {a->transpose_b ? out : features, a->transpose_b ? features : out};
    if (r->in->axes != 2 || weight->axes != 2 || !has_shape(weight, 2, shape))
        return refused(r->net, SQZ_GRAPH, r->names[1]);
    if (!set_shape(r->out, out, 1, 1)) return SQZ_LENGTH;
    r->out->axes = 2;
    r->node->transposed = a->transpose_b;
    r->node->alpha = a->has_alpha ? a->alpha : 1.0f;
    r->node->beta = a->has_beta ? a->beta : 1.0f;
    r->net->macs += weight->weights;
    return find_weights(r, out);
}

/* The values of a node with any number of them, behind the first. */
static sqz_error more_values(Reader *r) {
    Plan *plan = r->net->plan;
    Field f;
    u32 count = 0;
    while (next_field(&r->message, &f) > 0) {
        if (f.number != NODE_INPUT) continue;
        u32 value = find_value(plan, f.bytes);
        if (value == ABSENT) return refused(r->net, SQZ_GRAPH, f.bytes);
        plan->inputs[r->node->first_input + count++] = value;
    }
    r->node->inputs = count;
    return SQZ_OK;
}

static sqz_error plan_concat(Reader *r) {
    const Plan *plan = r->net->plan;
    sqz_error error = more_values(r);
    if (error) return error;
    u64 channels = 0;
    for (u32 i = 0; i < r->node->inputs; i++) {
        const Value *part = plan->values + plan->inputs[r->node->first_input + i];
        if (part->shape[1] != r->in->shape[1] || part->shape[2] != r->in->shape[2] ||
            part->axes != r->in->axes)
            return refused(r->net, SQZ_GRAPH, part->name);
        channels += part->shape[0];
    }
    return set_shape(r->out, channels, r->in->shape[1], r->in->shape[2]) ? SQZ_OK : SQZ_LENGTH;
}

static sqz_error plan_add(Reader *r) {
    const Plan *plan = r->net->plan;
    for (u32 i = 0; i < 2; i++)
        if (find_value(plan, r->names[i]) == ABSENT) return SQZ_UNSUPPORTED; /* adds weights */
    sqz_error error = more_values(r);
    if (error) return error;
    const Value *other = plan->values + plan->inputs[r->node->first_input + 1];
    for (u32 i = 0; i < 3; i++)
        if (other->shape[i] != r->in->shape[i] || other->axes != r->in->axes)
            return SQZ_UNSUPPORTED; /* broadcasts */
    return SQZ_OK;
}

/* Whether a Reshape's target is a row of numbers for every image: (0 or -1 or 1, -1 or the size). */
static int flattens(Reader *r) {
    Span tensor = find_initializer(r->graph, r->names[1]), raw;
    i64 dims[1] = {0}, type[1] = {0}, target[2] = {0, 0};
    if (integers(tensor, TENSOR_DIMS, dims, 1) != 1 || dims[0] != 2) return 0;
    if (integers(tensor, TENSOR_TYPE, type, 1) != 1 || type[0] != INT64) return 0;
    if (!find_field(tensor, TENSOR_RAW, &raw)) return 0;
    if (size_of(raw) == 16) {
        for (u32 i = 0; i < 2; i++)
            target[i] = (i64)(little32(raw.at + 8 * i) | (u64)little32(raw.at + 8 * i + 4) << 32);
    } else if (size_of(raw) || integers(tensor, TENSOR_INTS, target, 2) != 2) return 0;
    return target[0] >= -1 && target[0] <= 1 &&
           (target[1] == (i64)elements(r->in) || (target[1] == -1 && target[0] >= 0));
}

static const struct {
    const char *name;
    Operator op;
    u32 least, most; /* inputs */
} operators[] = {
    {"Conv", CONV, 2, 3},
    {"Gemm", GEMM, 2, 3},
    {"MaxPool", MAX_POOL, 1, 1},
    {"AveragePool", AVERAGE_POOL, 1, 1},
    {"GlobalAveragePool", GLOBAL_POOL, 1, 1},
    {"Relu", RELU, 1, 1},
    {"Concat", CONCAT, 1, MOST_INPUTS},
    {"Add", ADD, 2, 2},
    {"LRN", LRN, 1, 1},
    {"Softmax", SOFTMAX, 1, 1},
    {"Dropout", SAME, 1, 3},
    {"Identity", SAME, 1, 1},
    {"Flatten", SAME, 1, 1},
    {"Reshape", SAME, 2, 2},
};

static sqz_error plan_operator(Reader *r, const Attributes *a) {
    Node *node = r->node;
    const Value *in = r->in;
    Value *out = r->out;
    set_shape(out, in->shape[0], in->shape[1], in->shape[2]); /* unless told otherwise */
    out->axes = in->axes;
    switch (node->op) {
    case CONV: return plan_conv(r, a);
    case GEMM: return a->transpose_a ? SQZ_UNSUPPORTED : plan_gemm(r, a);
    case AVERAGE_POOL:
        if (a->ceil || a->pads[0] || a->pads[1] || a->pads[2] || a->pads[3]) return SQZ_UNSUPPORTED;
        /* fall through */
    case MAX_POOL:
        for (u32 i = 0; i < 2; i++) {
            if (!a->kernel[i]) return SQZ_GRAPH;
            if (a->dilation[i] != 1) return SQZ_UNSUPPORTED;
            /* So no window lies in the padding as a whole. */
            if (node->before[i] >= a->kernel[i] || node->after[i] >= a->kernel[i]) return SQZ_GRAPH;
            node->kernel[i] = a->kernel[i];
        }
        return windowed(node, in, out, in->shape[0]) ? SQZ_OK : SQZ_LENGTH;
    case GLOBAL_POOL: return set_shape(out, in->shape[0], 1, 1) ? SQZ_OK : SQZ_LENGTH;
    case CONCAT:
        if (a->axis != 1 && a->axis != 1 - (i64)in->axes) return SQZ_UNSUPPORTED;
        return plan_concat(r);
    case ADD: return plan_add(r);
    case LRN:
        if (!a->size || !(a->size & 1)) return SQZ_UNSUPPORTED;
        node->window = a->size;
        node->alpha = a->has_alpha ? a->alpha : 1e-4f;
        node->beta = a->has_beta ? a->beta : 0.75f;
        node->bias = a->bias;
        return SQZ_OK;
    case SOFTMAX:
        /* Of four axes the default depends on the operator set; of two it is the second one. */
        if (in->shape[1] != 1 || in->shape[2] != 1) return SQZ_UNSUPPORTED;
        if (!(a->has_axis && a->axis == 1) && !(in->axes == 2 && a->axis >= -1 && a->axis <= 1))
            return SQZ_UNSUPPORTED;
        return SQZ_OK;
    case SAME:
        if (is(r->operator, "Reshape") && !flattens(r)) return SQZ_UNSUPPORTED;
        if (is(r->operator, "Flatten") && a->has_axis && a->axis != 1) return SQZ_UNSUPPORTED;
        if (is(r->operator, "Flatten") || is(r->operator, "Reshape")) {
            set_shape(out, elements(in), 1, 1);
            out->axes = 2;
        }
        return SQZ_OK;
    default: return SQZ_OK;
    }
}

/* Inputs, output and operator of a node; the memory of the plan has room for them. */
static sqz_error read_names(Reader *r, Span message) {
    Field f;
    Span output = {message.at, message.at};
    u32 outputs = 0;
    while (next_field(&message, &f) > 0) {
        if (f.number == NODE_INPUT && r->inputs++ < 3) r->names[r->inputs - 1] = f.bytes;
        if (f.number == NODE_OUTPUT && size_of(f.bytes) && !outputs++) output = f.bytes;
        if (f.number == NODE_OPERATOR) r->operator = f.bytes;
        if (f.number == NODE_DOMAIN && size_of(f.bytes) && !is(f.bytes, "ai.onnx"))
            return refused(r->net, SQZ_UNSUPPORTED, f.bytes);
    }
    if (outputs != 1) return refused(r->net, outputs ? SQZ_UNSUPPORTED : SQZ_GRAPH, r->operator);
    if (find_value(r->net->plan, output) != ABSENT) return refused(r->net, SQZ_GRAPH, output);
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

    u32 kind = 0, kinds = sizeof operators / sizeof *operators;
    while (kind < kinds && !is(r.operator, operators[kind].name)) kind++;
    if (kind == kinds) return refused(net, SQZ_UNSUPPORTED, r.operator);
    if (r.inputs < operators[kind].least || r.inputs > operators[kind].most)
        return refused(net, SQZ_GRAPH, r.operator);
    u32 in = find_value(plan, r.names[0]);
    if (in == ABSENT) return refused(net, SQZ_GRAPH, r.names[0]);

    Attributes a = {{0, 0}, {1, 1}, {0, 0, 0, 0}, {1, 1}, 1, 0, 0, 0, 0, 1, 0.0f, 0.0f, 1.0f, 0, 0, 0};
    node->op = operators[kind].op;
    /* Dropout's seed and Reshape's allowzero change nothing here. */
    if (!(node->op == SAME && !is(r.operator, "Flatten")) &&
        !read_attributes(message, &a))
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
    error = plan_operator(&r, &a);
    if (error) return net->detail.bytes ? error : refused(net, error, r.operator);
    plan->input_count += node->inputs;
    plan->value_count++;
    plan->node_count++;
    return SQZ_OK;
}

/* ---- memory: who lies where, and from when to when ---- */

/* The value whose memory a value lies in, and how many floats from its start. */
static Value *root_of(const Plan *plan, u32 value, u32 *offset) {
    *offset = 0;
    while (plan->values[value].root != value) {
        *offset += plan->values[value].offset;
        value = plan->values[value].root;
    }
    return plan->values + value;
}

/* Nodes that do nothing, and a ReLU behind what can do it as well, give what they are given. A value
 * that goes into a Concat lies in the Concat's memory from the start. */
static void share_memory(Plan *plan) {
    u32 makers[MOST_NODES + 1]; /* of a value, the node that writes it; the image has none */
    for (u32 i = 0; i < plan->node_count; i++) {
        Node *node = plan->nodes + i;
        u32 in = plan->inputs[node->first_input];
        makers[node->output] = i;
        if (node->op == RELU && in) {
            Node *maker = plan->nodes + makers[in];
            int can = maker->op == CONV || maker->op == GEMM || maker->op == ADD;
            if (can && plan->values[in].uses == 1) {
                maker->relu = 1;
                node->op = SAME;
            }
        }
        if (node->op == SAME) plan->values[node->output].root = in;
    }
    for (u32 i = 0; i < plan->node_count; i++) {
        const Node *node = plan->nodes + i;
        u32 at = 0, offset;
        if (node->op != CONCAT) continue;
        for (u32 j = 0; j < node->inputs; j++) {
            u32 part = plan->inputs[node->first_input + j];
            Value *root = root_of(plan, part, &offset);
            u32 index = (u32)(root - plan->values);
            if (index && !offset && elements(root) == elements(plan->values + part) &&
                index != node->output) {
                root->root = node->output;
                root->offset = at;
            }
            at += elements(plan->values + part);
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
            root_of(plan, plan->inputs[node->first_input + j], &offset)->last = i;
    }
    root_of(plan, plan->output, &offset)->last = plan->node_count;
}

static u64 aligned(u64 floats) { return (floats + 15) & ~(u64)15; }

/* Each value at the lowest place that is free as long as it lives. */
static void place_values(Plan *plan) {
    for (u32 i = 1; i < plan->value_count; i++) {
        Value *value = plan->values + i;
        if (value->root != i) continue;
        for (u32 j = 1; j < i;) { /* from the start again whenever it had to move */
            const Value *other = plan->values + j++;
            if (other->root != j - 1 || other->last < value->first || value->last < other->first)
                continue;
            u64 end = other->place + aligned(elements(other));
            if (value->place >= end || other->place >= value->place + elements(value)) continue;
            value->place = end;
            j = 1;
        }
        u64 end = value->place + aligned(elements(value));
        if (end > plan->activation_floats) plan->activation_floats = end;
    }
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
    if (!find_field(info, 1, &name) || !find_field(info, 2, &type) ||
        !find_field(type, 1, &tensor) || !find_field(tensor, 2, &shape))
        return SQZ_GRAPH;
    while (next_field(&shape, &f) > 0) { /* TensorShapeProto.dim, .dim_value */
        if (f.number != 1) continue;
        if (axes >= 4) return SQZ_GRAPH;
        while (next_field(&f.bytes, &dim) > 0)
            if (dim.number == 1 && axes && dim.value != expected[axes]) return SQZ_GRAPH;
        axes++;
    }
    if (axes != 4 || plan->value_count) return SQZ_GRAPH;
    plan->values[0].name = name;
    if (!set_shape(plan->values, expected[1], expected[2], expected[3])) return SQZ_LENGTH;
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
    if (!find_field(model, MODEL_GRAPH, &graph)) return SQZ_GRAPH;
    for (Span s = graph; !error && next_field(&s, &f) > 0;)
        if (f.number == GRAPH_INPUT) error = read_input(net, f.bytes);
    if (error) return error;
    if (!plan->value_count) return SQZ_GRAPH;
    for (Span s = graph; !error && next_field(&s, &f) > 0;)
        if (f.number == GRAPH_NODE) error = plan_node(net, graph, f.bytes);
    if (error) return error;
    for (Span s = graph; plan->output == ABSENT && next_field(&s, &f) > 0;) {
        if (f.number != GRAPH_OUTPUT) continue;
        if (!find_field(f.bytes, 1, &name)) return SQZ_GRAPH;
        plan->output = find_value(plan, name);
        if (plan->output == ABSENT) return refused(net, SQZ_GRAPH, name);
    }
    if (plan->output == ABSENT) return SQZ_GRAPH;
    net->classes = (i32)elements(plan->values + plan->output);

    for (u32 i = 0; i < plan->value_count; i++) plan->values[i].root = i;
    for (u32 i = 0; i < plan->input_count; i++) plan->values[plan->inputs[i]].uses++;
    plan->values[plan->output].uses++;
    share_memory(plan);
    find_lifetimes(plan);
    place_values(plan);
    for (u32 i = 0; i < plan->node_count; i++) {
        u64 floats = plan->nodes[i].op == CONV ? aligned(sqz_packed_pixels(plan->nodes + i)) : 0;
        if (floats > plan->scratch_floats) plan->scratch_floats = floats;
    }
    return SQZ_OK;
}
