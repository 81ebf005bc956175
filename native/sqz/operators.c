/* The operators that there are, and what each makes of its input. */
#include "operators.h"
#include "onnx.h"
#include "proto.h"

/* ---- names ---- */

u32 sqz_find_value(const Plan *plan, Span name) {
    for (u32 i = 0; i < plan->value_count; i++)
        if (same_text(plan->values[i].name, name)) return i;
    return ABSENT;
}

const Record *sqz_find_record(const Plan *plan, Span name) {
    for (u32 i = 0; i < plan->record_count; i++)
        if (same_text(plan->records[i].name, name)) return plan->records + i;
    return NULL;
}

/* The initializer of a name within the graph; empty where there is none. */
static Span find_initializer(Span graph, Span name) {
    Field f;
    Span found = {graph.at, graph.at}, own;
    while (sqz_next_field(&graph, &f) > 0)
        if (f.number == GRAPH_INITIALIZER && sqz_find_field(f.bytes, TENSOR_NAME, &own) &&
            same_text(own, name))
            found = f.bytes;
    return found;
}

/* ---- shapes ---- */

int sqz_set_shape(Value *value, u64 channels, u64 height, u64 width) {
    if (!channels || !height || !width || channels > MOST_WEIGHTS || height > MOST_WEIGHTS ||
        width > MOST_WEIGHTS || channels * height > MOST_WEIGHTS ||
        channels * height * width > MOST_WEIGHTS)
        return 0;
    value->shape[0] = (u32)channels;
    value->shape[1] = (u32)height;
    value->shape[2] = (u32)width;
    return 1;
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
    return sqz_set_shape(out, channels, windows(node, in->shape[1], 0), windows(node, in->shape[2], 1));
}

/* ---- weights and other inputs ---- */

static int has_shape(const Record *record, u32 axes, const u32 *shape) {
    if (!record || record->axes != axes) return 0;
    for (u32 i = 0; i < axes; i++)
        if (record->shape[i] != shape[i]) return 0;
    return 1;
}

/* Weight and bias, which must be tensors of the file with `outputs` first. */
static sqz_error find_weights(Reader *r, u32 outputs) {
    Node *node = r->node;
    node->weight = sqz_find_record(r->net->plan, r->names[1]);
    if (!node->weight) return refused(r->net, SQZ_GRAPH, r->names[1]);
    if (r->inputs > 2 && size_of(r->names[2])) {
        node->addend = sqz_find_record(r->net->plan, r->names[2]);
        if (!has_shape(node->addend, 1, &outputs)) return refused(r->net, SQZ_GRAPH, r->names[2]);
    }
    return SQZ_OK;
}

static sqz_error plan_conv(Reader *r, const Attributes *a) {
    Node *node = r->node;
    const Record *weight = sqz_find_record(r->net->plan, r->names[1]);
    if (!weight) return refused(r->net, SQZ_GRAPH, r->names[1]);
    u32 shape[4] = {weight->shape[0], r->in->shape[0] / a->group, weight->shape[2],
                    weight->shape[3]};
    node->groups = a->group;
    for (u32 i = 0; i < 2 && weight->axes == 4; i++) {
        if (a->kernel[i] && a->kernel[i] != shape[2 + i]) return SQZ_GRAPH;
        node->kernel[i] = shape[2 + i];
        if (!shape[2 + i] || shape[2 + i] > MOST_SIDE) return SQZ_GRAPH;
    }
    if (!has_shape(weight, 4, shape) || r->in->shape[0] % a->group || shape[0] % a->group)
        return refused(r->net, SQZ_GRAPH, r->names[1]);
    if (!windowed(node, r->in, r->out, shape[0])) return SQZ_LENGTH;
    r->net->macs += (u64)weight->weights * r->out->shape[1] * r->out->shape[2];
    if (r->net->macs >> 60) return SQZ_LENGTH;
    return find_weights(r, shape[0]);
}

static sqz_error plan_gemm(Reader *r, const Attributes *a) {
    const Record *weight = sqz_find_record(r->net->plan, r->names[1]);
    if (!weight) return refused(r->net, SQZ_GRAPH, r->names[1]);
    u32 out = weight->shape[a->transpose_b ? 0 : 1], features = elements(r->in);
    u32 shape[2] = {a->transpose_b ? out : features, a->transpose_b ? features : out};
    if (r->in->axes != 2 || weight->axes != 2 || !has_shape(weight, 2, shape))
        return refused(r->net, SQZ_GRAPH, r->names[1]);
    if (!sqz_set_shape(r->out, out, 1, 1)) return SQZ_LENGTH;
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
    while (sqz_next_field(&r->message, &f) > 0) {
        if (f.number != NODE_INPUT) continue;
        u32 value = sqz_find_value(plan, f.bytes);
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
    return sqz_set_shape(r->out, channels, r->in->shape[1], r->in->shape[2]) ? SQZ_OK : SQZ_LENGTH;
}

static sqz_error plan_add(Reader *r) {
    const Plan *plan = r->net->plan;
    for (u32 i = 0; i < 2; i++)
        if (sqz_find_value(plan, r->names[i]) == ABSENT) return SQZ_UNSUPPORTED; /* adds weights */
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
    if (sqz_integers(tensor, TENSOR_DIMS, dims, 1) != 1 || dims[0] != 2) return 0;
    if (sqz_integers(tensor, TENSOR_TYPE, type, 1) != 1 || type[0] != INT64) return 0;
    if (!sqz_find_field(tensor, TENSOR_RAW, &raw)) return 0;
    if (size_of(raw) == 16) {
        for (u32 i = 0; i < 2; i++)
            target[i] = (i64)(little32(raw.at + 8 * i) | (u64)little32(raw.at + 8 * i + 4) << 32);
    } else if (size_of(raw) || sqz_integers(tensor, TENSOR_INTS, target, 2) != 2) return 0;
    return target[0] >= -1 && target[0] <= 1 &&
           (target[1] == (i64)elements(r->in) || (target[1] == -1 && target[0] >= 0));
}


/* ---- by name ---- */

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

sqz_error sqz_find_operator(Reader *r) {
    u32 kind = 0, kinds = sizeof operators / sizeof *operators;
    while (kind < kinds && !is(r->operator, operators[kind].name)) kind++;
    if (kind == kinds) return SQZ_UNSUPPORTED;
    r->node->op = operators[kind].op;
    return r->inputs < operators[kind].least || r->inputs > operators[kind].most ? SQZ_GRAPH : SQZ_OK;
}

sqz_error sqz_plan_operator(Reader *r, const Attributes *a) {
    Node *node = r->node;
    const Value *in = r->in;
    Value *out = r->out;
    sqz_set_shape(out, in->shape[0], in->shape[1], in->shape[2]); /* unless told otherwise */
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
    case GLOBAL_POOL: return sqz_set_shape(out, in->shape[0], 1, 1) ? SQZ_OK : SQZ_LENGTH;
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
            sqz_set_shape(out, elements(in), 1, 1);
            out->axes = 2;
        }
        return SQZ_OK;
    default: return SQZ_OK;
    }
}
