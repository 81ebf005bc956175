/* Protocol buffers: a message is fields, each a number and a value. */
#ifndef SQZ_PROTO_H
#define SQZ_PROTO_H

#include "basics.h"

typedef struct {
    u32 number, kind;
    u64 value;  /* of a varint, or the bits of a float32 */
    Span bytes; /* of text and messages; else empty */
} Field;

/* An LEB128 number of at most 10 bytes; 0 where it ends early or is more than `most`. */
int sqz_varint(Span *span, u64 most, u64 *value);

/* The next field: 1, or 0 at the end, or -1 where the bytes are no message. */
int sqz_next_field(Span *message, Field *field);

/* The last field of a number, empty where there is none; 0 where the message is broken. */
int sqz_find_field(Span message, u32 number, Span *found);

/* Integers of a repeated field, packed or one by one; returns how many, at most `most` + 1. */
u32 sqz_integers(Span message, u32 number, i64 *values, u32 most);

#endif
