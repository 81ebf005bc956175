/* Huffman codes, decoded. */
#ifndef SQZ_HUFFMAN_H
#define SQZ_HUFFMAN_H

#include "basics.h"

/* Bytes of the coder's state. */
u32 sqz_huffman_bytes(void);

/* Bytes used; below zero where it fails. */
i32 sqz_huffman(void *state, Span bytes, u16 *symbols, u32 count, const u8 *lengths, u32 alphabet);

#endif
