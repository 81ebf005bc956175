/* The fields that the messages of a graph may have; any other makes it invalid. */
#include "model.h"
#include "onnx.h"
#include "proto.h"
#include "record.h"
#include "text.h"

#if STRICT

/* Kinds, as protocol buffers number them; PART and NAME are bytes, names in UTF-8. */
enum { NUMBER = 0, PART = 2, REAL = 5, NAME = 10 };
enum { MOST_INTS = 64, MOST_SETTING = 1 << 16, OLDEST_OPSET = 7, NEWEST_OPSET = 26 };

typedef struct {
    u8 number, kind;
    u32 most; /* how often it may stand; 1: once, and not packed */
} Rule;

static const Rule model_rules[] = {{1, NUMBER, 1}, {2, NAME, 1}, {3, NAME, 1}, {4, NAME, 1},
    {5, NUMBER, 1}, {6, NAME, 1}, {MODEL_GRAPH, PART, 1}, {MODEL_OPSET, PART, 1}, {0, 0, 0}};
static const Rule opset_rules[] = {{OPSET_DOMAIN, NAME, 1}, {OPSET_VERSION, NUMBER, 1}, {0, 0, 0}};
static const Rule graph_rules[] = {{GRAPH_NODE, PART, MOST_NODES}, {2, NAME, 1},
    {GRAPH_INITIALIZER, PART, MOST_NODES}, {10, NAME, 1}, {GRAPH_INPUT, PART, 1},
    {GRAPH_OUTPUT, PART, 1}, {0, 0, 0}};
static const Rule value_rules[] = {{VALUE_NAME, NAME, 1}, {VALUE_TYPE, PART, 1}, {3, NAME, 1},
    {0, 0, 0}};
static const Rule type_rules[] = {{TYPE_TENSOR, PART, 1}, {0, 0, 0}};
static const Rule tensor_type_rules[] = {{TYPE_ELEMENT, NUMBER, 1}, {TYPE_SHAPE, PART, 1},
    {0, 0, 0}};
static const Rule shape_rules[] = {{SHAPE_DIM, PART, MOST_AXES}, {0, 0, 0}};
static const Rule dim_rules[] = {{DIM_VALUE, NUMBER, 1}, {DIM_NAME, NAME, 1}, {0, 0, 0}};
static const Rule node_rules[] = {{NODE_INPUT, NAME, MOST_INPUTS}, {NODE_OUTPUT, NAME, MOST_INPUTS},
    {NODE_NAME, NAME, 1}, {NODE_OPERATOR, NAME, 1}, {NODE_ATTRIBUTE, PART, MOST_INTS}, {6, NAME, 1},
    {NODE_DOMAIN, NAME, 1}, {0, 0, 0}};
static const Rule attribute_rules[] = {{ATTRIBUTE_NAME, NAME, 1}, {ATTRIBUTE_FLOAT, REAL, 1},
    {ATTRIBUTE_INT, NUMBER, 1}, {ATTRIBUTE_TEXT, PART, 1}, {ATTRIBUTE_INTS, NUMBER, MOST_INTS},
    {13, NAME, 1}, {ATTRIBUTE_TYPE, NUMBER, 1}, {0, 0, 0}};
static const Rule tensor_rules[] = {{TENSOR_DIMS, NUMBER, MOST_AXES}, {TENSOR_TYPE, NUMBER, 1},
    {TENSOR_FLOATS, REAL, MOST_SETTING}, {TENSOR_INT32S, NUMBER, MOST_SETTING},
    {TENSOR_INT64S, NUMBER, MOST_SETTING}, {TENSOR_NAME, NAME, 1}, {TENSOR_RAW, PART, 1},
    {12, NAME, 1}, {0, 0, 0}};

enum { MOST_RULES = 8 };

/* What a message has of each of its rules: how often, and the last. */
typedef struct {
    u32 count[MOST_RULES + 1];
    Field last[MOST_RULES + 1];
} Found;

/* Numbers one behind the other; 0 where they are cut, or more than may be. */
static int count_packed(Span numbers, const Rule *rule, u32 *count) {
    u64 value;
    if (rule->kind == REAL) {
        *count += size_of(numbers) / 4;
        return size_of(numbers) % 4 == 0 && *count <= rule->most;
    }
    while (numbers.at < numbers.end)
        if (!sqz_varint(&numbers, ~(u64)0, &value) || ++*count > rule->most) return 0;
    return 1;
}

static int read(Span message, const Rule *rules, Found *found) {
    Field f;
    int more;
    for (u32 i = 0; i <= MOST_RULES; i++) {
        found->count[i] = 0;
        found->last[i].number = 0;
        found->last[i].value = 0;
        found->last[i].bytes.at = found->last[i].bytes.end = message.at;
    }
    while ((more = sqz_next_field(&message, &f)) > 0) {
        u32 i = 0;
        while (rules[i].number && rules[i].number != f.number) i++;
        if (!rules[i].number) return 0;
        if (f.kind == (rules[i].kind & 7)) {
            if (++found->count[i] > rules[i].most) return 0;
            if (rules[i].kind == NAME && !sqz_is_utf8(f.bytes)) return 0;
        } else if (f.kind != PART || rules[i].most == 1 ||
                   !count_packed(f.bytes, rules + i, found->count + i))
            return 0;
        found->last[i] = f;
    }
    return more == 0;
}

/* ---- inputs and outputs of the graph ---- */

static int check_value(Span value) {
    Found found, type, tensor, shape, dim;
    Field f;
    if (!read(value, value_rules, &found) || !found.count[1] || !size_of(found.last[0].bytes) ||
        !read(found.last[1].bytes, type_rules, &type) ||
        !read(type.last[0].bytes, tensor_type_rules, &tensor) || tensor.last[0].value != FLOAT)
        return 0;
    if (!tensor.count[1]) return 1;
    Span rest = tensor.last[1].bytes;
    if (!read(rest, shape_rules, &shape)) return 0;
    while (sqz_next_field(&rest, &f) > 0)
        if (!read(f.bytes, dim_rules, &dim) ||
            (dim.count[0] && (dim.count[1] || (i64)dim.last[0].value < 1)))
            return 0;
    return 1;
}

/* ---- initializers ---- */

static int check_initializer(Span message) {
    Found found;
    u64 numbers = 1;
    i64 dims[MOST_AXES];
    if (!read(message, tensor_rules, &found) || !size_of(found.last[5].bytes)) return 0;
    u32 axes = sqz_integers(message, TENSOR_DIMS, dims, MOST_AXES);
    int empty = 0;
    for (u32 i = 0; i < axes; i++) {
        if (dims[i] < 0) return 0;
        empty |= !dims[i];
    }
    for (u32 i = 0; i < axes && numbers <= MOST_SETTING; i++)
        numbers = dims[i] > MOST_SETTING ? MOST_SETTING + 1 : numbers * (u64)dims[i];
    if (empty) numbers = 0;
    u64 type = found.last[1].value;
    u32 given = found.count[2] + found.count[3] + found.count[4];
    u32 place = type == FLOAT ? 2 : type == INT64 ? 4 : 3;
    if (numbers > MOST_SETTING || (type != FLOAT && type != INT32 && type != INT64 && type != BOOL))
        return 0;
    if (found.count[6])
        return !given && size_of(found.last[6].bytes) ==
                             numbers * (type == INT64 ? 8 : type == BOOL ? 1 : 4);
    return given == found.count[place] && given == numbers;
}

/* ---- nodes ---- */

static int check_attribute(Span message) {
    static const u8 places[] = {0, 1, 2, 3, 0, 0, 0, 4}; /* rules, by type: float, int, text, ints */
    Found found;
    if (!read(message, attribute_rules, &found)) return 0;
    u64 type = found.last[6].value;
    if (type > 7 || !places[type]) return 0;
    for (u32 i = 1; i < 5; i++)
        if (found.count[i] && i != places[type]) return 0;
    return 1;
}

static sqz_error check_node(sqz_network *net, Span node, Counts *counts) {
    Found found;
    Field f;
    u32 outputs = 0;
    if (!read(node, node_rules, &found)) return SQZ_GRAPH;
    Span operator = found.last[3].bytes, domain = found.last[6].bytes;
    if (size_of(domain) && !sqz_is(domain, "ai.onnx")) return sqz_refused(net, SQZ_UNSUPPORTED, operator);
    for (Span rest = node; sqz_next_field(&rest, &f) > 0;) {
        outputs += f.number == NODE_OUTPUT && size_of(f.bytes);
        if (f.number == NODE_ATTRIBUTE && !check_attribute(f.bytes)) return SQZ_GRAPH;
    }
    counts->inputs += found.count[0];
    if (sqz_is(operator, "Split")) {
        counts->inputs += outputs;
        counts->nodes += outputs ? outputs : 1;
    } else counts->nodes++;
    return counts->inputs > MOST_INPUTS || counts->nodes > MOST_NODES ? SQZ_GRAPH : SQZ_OK;
}

sqz_error sqz_check_model(sqz_network *net, Span model, Counts *counts) {
    static const Counts none;
    Found found, opset, graph;
    Field f;
    *counts = none;
    if (!read(model, model_rules, &found) || !found.count[6] || !found.count[7]) return SQZ_GRAPH;
    if (!read(found.last[7].bytes, opset_rules, &opset)) return SQZ_GRAPH;
    Span domain = opset.last[0].bytes;
    if (size_of(domain) && !sqz_is(domain, "ai.onnx")) return sqz_refused(net, SQZ_UNSUPPORTED, domain);
    u64 version = opset.count[1] ? opset.last[1].value : 1;
    if (version < OLDEST_OPSET || version > NEWEST_OPSET)
        return sqz_refused(net, SQZ_UNSUPPORTED, domain);
    counts->opset = (u32)version;
    counts->graph = found.last[6].bytes;
    if (!read(counts->graph, graph_rules, &graph) || !graph.count[0] || !graph.count[4] ||
        !graph.count[5])
        return SQZ_GRAPH;
    for (Span rest = counts->graph; sqz_next_field(&rest, &f) > 0;) {
        if (f.number != GRAPH_NODE) continue;
        sqz_error error = check_node(net, f.bytes, counts);
        if (error) return error;
    }
    for (Span rest = counts->graph; sqz_next_field(&rest, &f) > 0;)
        if (f.number == GRAPH_INITIALIZER && !check_initializer(f.bytes)) return SQZ_GRAPH;
    counts->initializers = graph.count[2];
    return check_value(graph.last[4].bytes) && check_value(graph.last[5].bytes) ? SQZ_OK : SQZ_GRAPH;
}

#else

/* The counts alone; of the nodes and inputs, as many as there can be. */
sqz_error sqz_check_model(sqz_network *net, Span model, Counts *counts) {
    static const Counts none;
    Span opset;
    Field f, part;
    (void)net;
    *counts = none;
    sqz_find_field(model, MODEL_OPSET, &opset);
    while (sqz_next_field(&opset, &f) > 0)
        if (f.number == OPSET_VERSION) counts->opset = (u32)f.value;
    sqz_find_field(model, MODEL_GRAPH, &counts->graph);
    for (Span rest = counts->graph; sqz_next_field(&rest, &f) > 0;) {
        counts->initializers += f.number == GRAPH_INITIALIZER;
        if (f.number == GRAPH_NODE)
            while (sqz_next_field(&f.bytes, &part) > 0) {
                counts->inputs += part.number <= NODE_OUTPUT;
                counts->nodes += part.number == NODE_OUTPUT;
            }
    }
    return SQZ_OK;
}

#endif
