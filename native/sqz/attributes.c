/* From the attributes of an ONNX node to numbers within bounds; what is not known is not ignored. */
#include "attributes.h"
#include "onnx.h"
#include "proto.h"
#include "text.h"

typedef enum { REAL = 1, INT = 2, TEXT = 3, INTS = 7 } Kind; /* AttributeProto.type */

#define MOST 0x7fffffffffffffff
#define LEAST (-MOST - 1)

static const struct {
    const char *name;
    Kind kind;
    i64 least, most;
} attributes[ATTRIBUTES] = {
    {"allowzero", INT, 0, 1},
    {"alpha", REAL, 0, 0},
    {"approximate", TEXT, 0, 0},
    {"auto_pad", TEXT, 0, 0},
    {"axes", INTS, -8, 7},
    {"axis", INT, -8, 7},
    {"beta", REAL, 0, 0},
    {"bias", REAL, 0, 0},
    {"ceil_mode", INT, 0, 1},
    {"count_include_pad", INT, 0, 1},
    {"dilations", INTS, 1, MOST_SIDE},
    {"ends", INTS, LEAST, MOST},
    {"epsilon", REAL, 0, 0},
    {"group", INT, 1, MOST_SIDE},
    {"keepdims", INT, 0, 1},
    {"kernel_shape", INTS, 1, MOST_SIDE},
    {"max", REAL, 0, 0},
    {"min", REAL, 0, 0},
    {"mode", TEXT, 0, 0},
    {"momentum", REAL, 0, 0},
    {"noop_with_empty_axes", INT, 0, 1},
    {"num_outputs", INT, 1, 1024},
    {"pads", INTS, LEAST, MOST},
    {"perm", INTS, 0, 7},
    {"ratio", REAL, 0, 0},
    {"saturate", INT, 0, 1},
    {"seed", INT, LEAST, MOST},
    {"size", INT, 1, MOST_SIDE},
    {"spatial", INT, 1, 1},
    {"split", INTS, 0, MOST_SIDE},
    {"starts", INTS, LEAST, MOST},
    {"storage_order", INT, 0, 0},
    {"strides", INTS, 1, MOST_SIDE},
    {"to", INT, 1, 7},
    {"training_mode", INT, 0, 0},
    {"transA", INT, 0, 1},
    {"transB", INT, 0, 1},
    {"value", REAL, 0, 0},
};

static float float_of(Span message) {
    union {
        u32 bits;
        float value;
    } both = {0};
    Field f;
    while (sqz_next_field(&message, &f) > 0)
        if (f.number == ATTRIBUTE_FLOAT) both.bits = (u32)f.value;
    return both.value;
}

/* Whether a value has its kind and is within its bounds. */
static int allowed(Span message, Attribute which) {
    i64 values[MOST_INTS] = {0}, type = 0;
    Kind kind = attributes[which].kind;
    u32 count = 1;
    sqz_integers(message, ATTRIBUTE_TYPE, &type, 1);
    if (type != (i64)kind) return 0;
    if (kind == TEXT) return 1; /* who uses it looks what it says */
    if (kind == REAL) {
        float value = float_of(message);
        return value - value == 0.0f;
    }
    if (kind == INT) sqz_integers(message, ATTRIBUTE_INT, values, 1);
    else count = sqz_integers(message, ATTRIBUTE_INTS, values, MOST_INTS);
    if (count > MOST_INTS) return 0;
    for (u32 i = 0; i < count; i++)
        if (values[i] < attributes[which].least || values[i] > attributes[which].most) return 0;
    return 1;
}

sqz_error sqz_read_attributes(Span node, u64 known, Attributes *a) {
    Field f;
    Span name;
    a->given = 0;
    while (sqz_next_field(&node, &f) > 0) {
        u32 i = 0;
        if (f.number != NODE_ATTRIBUTE) continue;
        sqz_find_field(f.bytes, ATTRIBUTE_NAME, &name);
        while (i < ATTRIBUTES && !sqz_is(name, attributes[i].name)) i++;
        if (i == ATTRIBUTES || !(known >> i & 1) || !allowed(f.bytes, (Attribute)i))
            return SQZ_UNSUPPORTED;
        if (a->given >> i & 1) return SQZ_GRAPH;
        a->given |= (u64)1 << i;
        a->message[i] = f.bytes;
    }
    return SQZ_OK;
}

i64 sqz_integer(const Attributes *a, Attribute which, i64 otherwise) {
    i64 value = 0;
    if (!(a->given >> which & 1)) return otherwise;
    sqz_integers(a->message[which], ATTRIBUTE_INT, &value, 1);
    return value;
}

float sqz_real(const Attributes *a, Attribute which, float otherwise) {
    return a->given >> which & 1 ? float_of(a->message[which]) : otherwise;
}

int sqz_is_text(const Attributes *a, Attribute which, const char *text) {
    Span found;
    if (!(a->given >> which & 1)) return 0;
    sqz_find_field(a->message[which], ATTRIBUTE_TEXT, &found);
    return sqz_is(found, text);
}

u32 sqz_integers_of(const Attributes *a, Attribute which, i64 values[MOST_INTS]) {
    return sqz_integers(a->message[which], ATTRIBUTE_INTS, values, MOST_INTS);
}
