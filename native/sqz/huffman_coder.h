/* Canonical Huffman codes: Deep Compression's own coder (Han et al. 2016, section 4).
 *
 * Codes of one length are consecutive numbers in the order of their symbols, shorter lengths first;
 * bits are packed highest first. Symbols of length 0 have no code.
 */
#ifndef SQZ_BASICS_H
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
#endif

#ifndef EXPORT /* huffman.c includes this file, and keeps its names to itself */
#define EXPORT __attribute__((visibility("default")))
#endif

enum { OUT_OF_SPACE = -1, OUT_OF_INPUT = -2, OUT_OF_RANGE = -3, LONGEST = 15, MOST = 1 << 15 };

/* The caller's memory; what it holds between calls does not matter. */
typedef struct {
    u32 first[LONGEST + 2], offset[LONGEST + 2], number[LONGEST + 2], code[MOST];
    u16 sorted[MOST];
} Codes;

EXPORT i32 codes_bytes(void) { return sizeof(Codes); }

/* Assigns the codes; an over-full set of lengths is refused, one short of full is not. */
static i32 assign(Codes *codes, const u8 *lengths, u32 alphabet) {
    if (alphabet > MOST) return OUT_OF_RANGE;
    for (u32 n = 0; n <= LONGEST; n++) codes->number[n] = 0;
    for (u32 s = 0; s < alphabet; s++) {
        if (lengths[s] > LONGEST) return OUT_OF_RANGE;
        codes->number[lengths[s]]++;
    }
    u32 next = 0, place = 0;
    for (u32 n = 1; n <= LONGEST; n++) {
        next <<= 1;
        codes->first[n] = next;
        codes->offset[n] = place;
        next += codes->number[n];
        place += codes->number[n];
        if (next > 1u << n) return OUT_OF_RANGE;
    }
    u32 at[LONGEST + 1];
    for (u32 n = 1; n <= LONGEST; n++) at[n] = 0;
    for (u32 s = 0; s < alphabet; s++) {
        u32 n = lengths[s];
        if (!n) continue;
        codes->code[s] = codes->first[n] + at[n];
        codes->sorted[codes->offset[n] + at[n]++] = (u16)s;
    }
    return 0;
}

EXPORT i32 huffman_encode(Codes *codes, u8 *bytes, u32 size, const u16 *symbols, u32 count,
                          const u8 *lengths, u32 alphabet) {
    i32 error = assign(codes, lengths, alphabet);
    if (error) return error;
    u32 at = 0, held = 0;
    u64 bits = 0;
    for (u32 i = 0; i < count; i++) {
        u32 s = symbols[i], n = s < alphabet ? lengths[s] : 0;
        if (!n) return OUT_OF_RANGE;
        bits = bits << n | codes->code[s];
        held += n;
        while (held >= 8) {
            if (at >= size) return OUT_OF_SPACE;
            bytes[at++] = (u8)(bits >> (held -= 8));
        }
    }
    if (held) {
        if (at >= size) return OUT_OF_SPACE;
        bytes[at++] = (u8)(bits << (8 - held));
    }
    return (i32)at;
}

/* Returns the bytes consumed; the unused bits of the last one must be zero. */
EXPORT i32 huffman_decode(Codes *codes, const u8 *bytes, u32 size, u16 *symbols, u32 count,
                          const u8 *lengths, u32 alphabet) {
    i32 error = assign(codes, lengths, alphabet);
    if (error) return error;
    u32 at = 0, held = 0, byte = 0;
    for (u32 i = 0; i < count; i++) {
        u32 value = 0, n = 0;
        for (;;) {
            if (!held) {
                if (at >= size) return OUT_OF_INPUT;
                byte = bytes[at++];
                held = 8;
            }
            value = value << 1 | (byte >> --held & 1);
            if (++n > LONGEST) return OUT_OF_RANGE;
            if (value - codes->first[n] < codes->number[n] && value >= codes->first[n]) break;
        }
        symbols[i] = codes->sorted[codes->offset[n] + value - codes->first[n]];
    }
    if (byte & ((1u << held) - 1)) return OUT_OF_RANGE;
    return (i32)at;
}
