/* From the attributes of an ONNX node to numbers within bounds; what is not known is not ignored. */
#include "attributes.h"
#include "onnx.h"
#include "proto.h"

static int sizes(Span attribute, u32 *values, u32 count, i64 least) {
    i64 found[4];
    if (sqz_integers(attribute, ATTRIBUTE_INTS, found, count) != count) return 0;
    for (u32 i = 0; i < count; i++) {
        if (found[i] < least || found[i] > MOST_SIDE) return 0;
        values[i] = (u32)found[i];
    }
    return 1;
}

static int one_size(Span attribute, u32 *value, i64 least) {
    i64 found = 0;
    u32 count = sqz_integers(attribute, ATTRIBUTE_INT, &found, 1);
    *value = (u32)found;
    return count <= 1 && found >= least && found <= MOST_SIDE;
}

static int real(Span attribute, float *value) {
    union {
        u32 bits;
        float value;
    } both = {0};
    Field f;
    while (sqz_next_field(&attribute, &f) > 0)
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
        return sqz_integers(attribute, ATTRIBUTE_INT, &a->axis, 1) <= 1;
    }
    if (is(name, "auto_pad"))
        return sqz_find_field(attribute, ATTRIBUTE_TEXT, &text) && is(text, "NOTSET");
    if (is(name, "storage_order") || is(name, "count_include_pad"))
        return one_size(attribute, &zero, 0) && !zero;
    return 0;
}

int sqz_read_attributes(Span message, Attributes *a) {
    Field f;
    Span name;
    int more;
    while ((more = sqz_next_field(&message, &f)) > 0) {
        if (f.number != NODE_ATTRIBUTE) continue;
        if (!sqz_find_field(f.bytes, ATTRIBUTE_NAME, &name) || !read_attribute(f.bytes, name, a))
            return 0;
    }
    return more == 0;
}
