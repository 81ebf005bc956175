/* What all parts of the library use: short types, runs of bytes, limits. */
#ifndef SQZ_BASICS_H
#define SQZ_BASICS_H

#include "sqz.h"

/* What is built: see native/README.md. */
#ifdef SQZ_NO_FLOAT
#define FLOAT_LAYERS 0
#else
#define FLOAT_LAYERS 1
#endif
#ifdef SQZ_NO_INT8
#define INT8_LAYERS 0
#else
#define INT8_LAYERS 1
#endif
#if !FLOAT_LAYERS && !INT8_LAYERS
#error SQZ_NO_FLOAT and SQZ_NO_INT8 together leave nothing
#endif
/* Without checks of what is not needed to run, in files that a strict reader has read before. */
#ifdef SQZ_TRUSTED
#define STRICT 0
#define SQZ_NO_LIMITS
#else
#define STRICT 1
#endif

typedef uint8_t u8;
typedef int8_t i8;
typedef uint16_t u16;
typedef int32_t i32;
typedef uint32_t u32;
typedef int64_t i64;
typedef uint64_t u64;

/* Limits; with these nothing can overflow or take endlessly long. */
enum { MOST_AXES = 8, FORMATS_TENSORS = 100000, MOST_TENSORS = 4096, MOST_NODES = 4096, MOST_INPUTS = 8192 };
#define MOST_WEIGHTS (1u << 28) /* of all tensors, and of any one value in the graph */
#define MOST_HEAD_BYTES (64u << 20)

#define ABSENT 0xffffffffu

/* Bytes that are still to be read. */
typedef struct {
    const u8 *at, *end;
} Span;

static inline u32 size_of(Span span) { return (u32)(span.end - span.at); }

static inline u32 little32(const u8 *p) {
    return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}

static inline u32 u32_min(u32 a, u32 b) { return a < b ? a : b; }

#endif
