/* Protocol buffers, field by field. */
#include "proto.h"

int sqz_varint(Span *span, u64 most, u64 *value) {
    *value = 0;
    for (u32 shift = 0; shift < 70 && span->at < span->end; shift += 7) {
        u8 byte = *span->at++;
        if (shift == 63 && byte > 1) return 0;
        *value |= (u64)(byte & 127) << shift;
        if (byte < 128) return *value <= most;
    }
    return 0;
}

int sqz_next_field(Span *message, Field *field) {
    u64 key, bytes;
    if (message->at == message->end) return 0;
    if (!sqz_varint(message, 0xffffffffu, &key)) return -1;
    field->number = (u32)key >> 3;
    field->kind = key & 7;
    if (!field->number) return -1;
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

int sqz_find_field(Span message, u32 number, Span *found) {
    Field f;
    int more;
    found->at = found->end = message.at;
    while ((more = sqz_next_field(&message, &f)) > 0)
        if (f.number == number) *found = f.bytes;
    return more == 0;
}

u32 sqz_integers(Span message, u32 number, i64 *values, u32 most) {
    Field f;
    u32 count = 0;
    while (sqz_next_field(&message, &f) > 0) {
        if (f.number != number) continue;
        if (!f.kind) { /* one by itself */
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
