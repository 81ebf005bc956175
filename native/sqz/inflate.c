/* Raw deflate (RFC 1951), into memory of exactly the size it must fill. */
#include "inflate.h"

enum { LONGEST = 15, LITERALS = 288, DISTANCES = 30 };

/* Why it stopped: the bytes are no deflate, or they are not of the size that they should be. */
enum { BAD = 1, SHORT_OR_LONG = 2 };

typedef struct {
    Span in;
    u8 *out;
    u32 size, filled, bits, held;
    int stop;
} Stream;

/* A canonical Huffman code: how many codes have each length, and their symbols in order. */
typedef struct {
    u16 count[LONGEST + 1], symbol[LITERALS];
    u32 longest;
} Code;

static void stop(Stream *s, int why) {
    if (!s->stop) s->stop = why; /* the first counts */
}

static u32 take(Stream *s, u32 bits) { /* the lowest first; at most 16 */
    while (s->held < bits) {
        if (s->in.at == s->in.end) {
            stop(s, SHORT_OR_LONG);
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

/* A code must be full, as zlib has it; of one symbol or none only where that is `allowed`. */
static void build(Stream *s, Code *code, const u8 *lengths, u32 symbols, int allowed) {
    u16 offset[LONGEST + 1];
    for (u32 n = 0; n <= LONGEST; n++) code->count[n] = 0;
    for (u32 i = 0; i < symbols; i++) code->count[lengths[i]]++;
    i32 left = 1;
    offset[0] = code->count[0] = 0;
    code->longest = 0;
    for (u32 n = 1; n <= LONGEST; n++) {
        left = left * 2 - code->count[n];
        if (left < 0) { /* more codes than there can be */
            stop(s, BAD);
            return;
        }
        if (code->count[n]) code->longest = n;
        offset[n] = (u16)(offset[n - 1] + code->count[n - 1]);
    }
    if (left && code->longest && !(allowed && code->longest == 1)) stop(s, BAD);
    for (u32 i = 0; i < symbols; i++)
        if (lengths[i]) code->symbol[offset[lengths[i]]++] = (u16)i;
}

static u32 decode(Stream *s, const Code *code) {
    u32 value = 0, first = 0, index = 0;
    for (u32 n = 1; n == 1 || n <= code->longest; n++) {
        value = value << 1 | take(s, 1);
        if (s->stop) return 0;
        u32 count = code->count[n];
        if (value - first < count) return code->symbol[index + value - first];
        index += count;
        first = (first + count) << 1;
    }
    stop(s, BAD);
    return 0;
}

/* One byte more than fits is still counted: zlib looks so far ahead, and may find what is worse. */
static void put(Stream *s, u8 byte) {
    if (s->filled > s->size) stop(s, SHORT_OR_LONG);
    else if (s->filled++ < s->size) s->out[s->filled - 1] = byte;
}

static void stored_block(Stream *s) {
    s->bits = s->held = 0;
    u32 length = take(s, 16), inverse = take(s, 16);
    if (s->stop) return;
    if (length != (0xffff & ~inverse)) stop(s, BAD);
    while (!s->stop && length--) put(s, (u8)take(s, 8));
}

static void codes(Stream *s, const Code *literals, const Code *distances) {
    while (!s->stop) {
        u32 symbol = decode(s, literals);
        if (s->stop || symbol == 256) return;
        if (symbol < 256) {
            put(s, (u8)symbol);
            continue;
        }
        /* Lengths 3 to 258, distances 1 to 32768: each step of 4 (of 2) codes has one more bit. */
        u32 i = symbol - 257, length = 3 + i;
        if (i > 28) stop(s, BAD);
        else if (i >= 8) {
            u32 extra = (i >> 2) - 1;
            length = i == 28 ? 258 : 3 + ((4 + (i & 3)) << extra) + take(s, extra);
        }
        u32 j = s->stop ? 0 : decode(s, distances), distance = 1 + j;
        if (s->stop) return;
        if (j >= DISTANCES) stop(s, BAD);
        else if (j >= 4) {
            u32 extra = (j >> 1) - 1;
            distance = 1 + ((2 + (j & 1)) << extra) + take(s, extra);
        }
        if (s->filled > s->size) stop(s, SHORT_OR_LONG);
        else if (distance > s->filled) stop(s, BAD);
        while (!s->stop && length--) {
            u32 from = s->filled - distance;
            put(s, s->filled < s->size ? s->out[from] : 0);
        }
    }
}

/* The lengths of both codes, themselves coded; 0 where they are not to be used. */
static int read_lengths(Stream *s, u8 *lengths, u32 *literals, u32 *distances) {
    static const u8 order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    Code code;
    u32 at = 0;
    *literals = 257 + take(s, 5);
    *distances = 1 + take(s, 5);
    u32 given = 4 + take(s, 4), total = *literals + *distances;
    if (!s->stop && (*literals > LITERALS - 2 || *distances > DISTANCES)) stop(s, BAD);
    if (s->stop) return 0;
    for (u32 i = 0; i < 19; i++) lengths[order[i]] = i < given ? (u8)take(s, 3) : 0;
    if (s->stop) return 0;
    build(s, &code, lengths, 19, 0);
    while (!s->stop && at < total) {
        /* Without any code, each bit stands for a length of 0 to zlib. */
        u32 symbol = code.longest ? decode(s, &code) : take(s, 1) & 0, times = 1;
        u8 length = (u8)symbol;
        if (s->stop) return 0;
        if (symbol > 15) {
            times = symbol == 16 ? 3 + take(s, 2) : symbol == 17 ? 3 + take(s, 3) : 11 + take(s, 7);
            if (s->stop) return 0;
            length = symbol == 16 && at ? lengths[at - 1] : 0;
            if ((symbol == 16 && !at) || at + times > total) stop(s, BAD);
        }
        while (!s->stop && times--) lengths[at++] = length;
    }
    if (!s->stop && !lengths[256]) stop(s, BAD); /* no end */
    return !s->stop;
}

static void coded_block(Stream *s, int fixed) {
    Code literals, distances;
    u8 lengths[LITERALS + 32];
    u32 literal_count = LITERALS, distance_count = 32;
    if (fixed) {
        for (u32 i = 0; i < LITERALS; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
        for (u32 i = 0; i < 32; i++) lengths[LITERALS + i] = 5;
    } else if (!read_lengths(s, lengths, &literal_count, &distance_count)) return;
    build(s, &literals, lengths, literal_count, 1);
    build(s, &distances, lengths + literal_count, distance_count, 1);
    if (!s->stop) codes(s, &literals, &distances);
}

sqz_error sqz_inflate(Span in, u8 *out, u32 size) {
    Stream s = {in, out, size, 0, 0, 0, 0};
    for (u32 last = 0; !last && !s.stop;) {
        last = take(&s, 1);
        u32 kind = take(&s, 2);
        if (s.stop) break;
        if (kind > 2) stop(&s, BAD);
        else if (kind) coded_block(&s, kind == 1);
        else stored_block(&s);
    }
    if (s.stop) return s.stop == BAD ? SQZ_HEAD : SQZ_LENGTH;
    return s.filled == size && s.in.at == s.in.end ? SQZ_OK : SQZ_LENGTH;
}
