/* Numbers of initializers, raw or in fields. */
#include "settings.h"
#include "onnx.h"
#include "proto.h"
#include "text.h"

static float from_bits(u32 bits) {
    union {
        u32 bits;
        float value;
    } both;
    both.bits = bits;
    return both.value;
}

void sqz_read_setting(Span message, Record *r) {
    i64 dims[MOST_AXES], type = 0;
    u64 weights = 1;
    r->parameters = message;
    r->coder = IN_GRAPH;
    sqz_find_field(message, TENSOR_NAME, &r->name);
    r->hash = sqz_hash(r->name);
    sqz_find_field(message, TENSOR_RAW, &r->payload);
    sqz_integers(message, TENSOR_TYPE, &type, 1);
    r->type = (u32)type;
    r->axes = sqz_integers(message, TENSOR_DIMS, dims, MOST_AXES);
    for (u32 i = 0; i < r->axes; i++) {
        r->shape[i] = (u32)dims[i];
        weights *= (u64)dims[i];
    }
    r->weights = (u32)weights;
}

u32 sqz_setting_integers(const Record *r, i64 *values, u32 most) {
    int wide = r->type == INT64;
    if (r->coder != IN_GRAPH || (r->type != INT64 && r->type != INT32) || r->axes > 1 ||
        r->weights > most)
        return ABSENT;
    if (!size_of(r->payload))
        return sqz_integers(r->parameters, wide ? TENSOR_INT64S : TENSOR_INT32S, values, most);
    for (u32 i = 0; i < r->weights; i++) {
        const u8 *at = r->payload.at + (wide ? 8 : 4) * i;
        values[i] = wide ? (i64)(little32(at) | (u64)little32(at + 4) << 32) : (i32)little32(at);
    }
    return r->weights;
}

void sqz_setting_floats(const Record *r, float *values) {
    Span message = r->parameters;
    Field f;
    for (u32 i = 0; i < r->weights && size_of(r->payload); i++)
        *values++ = from_bits(little32(r->payload.at + 4 * i));
    while (!size_of(r->payload) && sqz_next_field(&message, &f) > 0)
        if (f.number == TENSOR_FLOATS)
            for (; f.bytes.at < f.bytes.end; f.bytes.at += 4) *values++ = from_bits(little32(f.bytes.at));
}

int sqz_setting_number(const Record *r, float *value) {
    if (r->coder != IN_GRAPH || r->type != FLOAT || r->weights != 1) return 0;
    sqz_setting_floats(r, value);
    return *value - *value == 0.0f;
}

int sqz_setting_is_false(const Record *r) {
    i64 value = 0;
    if (r->coder != IN_GRAPH || r->type != BOOL || r->weights != 1) return 0;
    if (size_of(r->payload)) return !*r->payload.at;
    sqz_integers(r->parameters, TENSOR_INT32S, &value, 1);
    return !value;
}
