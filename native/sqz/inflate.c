/* Raw deflate (RFC 1951), into memory of exactly the size it must fill. */
#include "inflate.h"

enum { LONGEST = 15, LITERALS = 288, DISTANCES = 30 };

typedef struct {
    Span in;
    u8 *out;
    u32 size, filled, bits, held;
    int bad;
} Stream;

/* A canonical Huffman code: how many codes have each length, and their symbols in order. */
typedef struct {
    uint16_t count[LONGEST + 1], symbol[LITERALS];
} Code;

static u32 take(Stream *s, u32 bits) { /* the lowest first; at most 16 */
    while (s->held < bits) {
        if (s->in.at == s->in.end) {
            s->bad = 1;
            return 0;
        }
        s->bits |= (u32)*s->in.at++ << s->held;
        s->held += 8;
    }
    u32 value = s->bits & ((1u << bits) - 1);
    s->bits >>= bits;
    s->held -= bits;
    return value;
}

static void build(Stream *s, Code *code, const u8 *lengths, u32 symbols) {
    uint16_t offset[LONGEST + 1];
    for (u32 n = 0; n <= LONGEST; n++) code->count[n] = 0;
    for (u32 i = 0; i < symbols; i++) code->count[lengths[i]]++;
    i32 left = 1;
    offset[0] = code->count[0] = 0;
    for (u32 n = 1; n <= LONGEST; n++) {
        left = left * 2 - code->count[n];
        if (left < 0) { /* more codes than there can be */
            s->bad = 1;
            return;
        }
        offset[n] = (uint16_t)(offset[n - 1] + code->count[n - 1]);
    }
    for (u32 i = 0; i < symbols; i++)
        if (lengths[i]) code->symbol[offset[lengths[i]]++] = (uint16_t)i;
}

static u32 decode(Stream *s, const Code *code) {
    u32 value = 0, first = 0, index = 0;
    for (u32 n = 1; n <= LONGEST; n++) {
        value = value << 1 | take(s, 1);
        u32 count = code->count[n];
        if (value - first < count) return code->symbol[index + value - first];
        index += count;
        first = (first + count) << 1;
    }
    s->bad = 1;
    return 0;
}

static void put(Stream *s, u8 byte) {
    if (s->filled < s->size) s->out[s->filled++] = byte;
    else s->bad = 1;
}

static void stored_block(Stream *s) {
    s->bits = s->held = 0;
    if (size_of(s->in) < 4) {
        s->bad = 1;
        return;
    }
    u32 length = s->in.at[0] | (u32)s->in.at[1] << 8;
    if (length != (0xffff & ~(s->in.at[2] | (u32)s->in.at[3] << 8)) || size_of(s->in) - 4 < length)
        s->bad = 1;
    s->in.at += 4;
    while (!s->bad && length--) put(s, *s->in.at++);
}

static void codes(Stream *s, const Code *literals, const Code *distances) {
    while (!s->bad) {
        u32 symbol = decode(s, literals);
        if (symbol < 256) {
            put(s, (u8)symbol);
            continue;
        }
        if (symbol == 256) return;
        /* Lengths 3 to 258, distances 1 to 32768: each step of 4 (of 2) codes has one more bit. */
        u32 i = symbol - 257, length = 3 + i;
        if (i >= 8) {
            u32 extra = (i >> 2) - 1;
            length = i == 28 ? 258 : 3 + ((4 + (i & 3)) << extra) + take(s, extra);
        }
        u32 j = decode(s, distances), distance = 1 + j;
        if (j >= 4) {
            u32 extra = (j >> 1) - 1;
            distance = 1 + ((2 + (j & 1)) << extra) + take(s, extra);
        }
        if (i > 28 || j >= DISTANCES || distance > s->filled) s->bad = 1;
        while (!s->bad && length--) put(s, s->out[s->filled - distance]);
    }
}

static void coded_block(Stream *s, int fixed) {
    static const u8 order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    Code literals, distances;
    u8 lengths[LITERALS + 32];
    u32 literal_count = LITERALS, distance_count = DISTANCES, at = 0;
    if (fixed) {
        for (; at < LITERALS; at++) lengths[at] = at < 144 ? 8 : at < 256 ? 9 : at < 280 ? 7 : 8;
        for (; at < LITERALS + DISTANCES; at++) lengths[at] = 5;
    } else {
        literal_count = 257 + take(s, 5);
        distance_count = 1 + take(s, 5);
        u32 given = 4 + take(s, 4);
        for (u32 i = 0; i < 19; i++) lengths[order[i]] = i < given ? (u8)take(s, 3) : 0;
        build(s, &literals, lengths, 19);
        while (!s->bad && at < literal_count + distance_count) {
            u32 symbol = decode(s, &literals), times = 1;
            u8 length = (u8)symbol;
            if (symbol > 15) {
                length = symbol == 16 && at ? lengths[at - 1] : 0;
                if (symbol == 16 && !at) s->bad = 1;
                times = symbol == 16 ? 3 + take(s, 2) : symbol == 17 ? 3 + take(s, 3)
                                                                     : 11 + take(s, 7);
            }
            if (at + times > literal_count + distance_count) s->bad = 1;
            while (!s->bad && times--) lengths[at++] = length;
        }
        if (literal_count > LITERALS - 2 || distance_count > DISTANCES) s->bad = 1;
    }
    if (s->bad) return;
    build(s, &literals, lengths, literal_count);
    build(s, &distances, lengths + literal_count, distance_count);
    codes(s, &literals, &distances);
}

sqz_error sqz_inflate(Span in, u8 *out, u32 size) {
    Stream s = {in, out, size, 0, 0, 0, 0};
    for (u32 last = 0; !last && !s.bad;) {
        last = take(&s, 1);
        u32 kind = take(&s, 2);
        if (s.bad || kind > 2) return SQZ_HEAD;
        if (kind) coded_block(&s, kind == 1);
        else stored_block(&s);
    }
    if (s.bad) return SQZ_HEAD;
    return s.filled == size && s.in.at == s.in.end ? SQZ_OK : SQZ_LENGTH;
}
