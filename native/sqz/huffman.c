/* The Huffman coder of native/huffman.c, of which only decoding is left. */
#define EXPORT static __attribute__((unused))
#include "../huffman.c"

i32 sqz_huffman(const u8 *bytes, u32 size, u16 *symbols, u32 count, const u8 *lengths,
                u32 alphabet);

i32 sqz_huffman(const u8 *bytes, u32 size, u16 *symbols, u32 count, const u8 *lengths,
                u32 alphabet) {
    static Codes codes;
    return huffman_decode(&codes, bytes, size, symbols, count, lengths, alphabet);
}
