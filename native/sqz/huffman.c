/* The Huffman coder, of which only decoding is left. */
#include "huffman.h"

#define EXPORT static __attribute__((unused))
#include "huffman_coder.h"

u32 sqz_huffman_bytes(void) { return sizeof(Codes); }

i32 sqz_huffman(void *state, Span bytes, u16 *symbols, u32 count, const u8 *lengths, u32 alphabet) {
    return huffman_decode(state, bytes.at, size_of(bytes), symbols, count, lengths, alphabet);
}
