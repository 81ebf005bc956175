/* The caller's memory, handed out from front to back. */
#ifndef SQZ_MEMORY_H
#define SQZ_MEMORY_H

#include "basics.h"

enum { ALIGNMENT = 16 };

typedef struct {
    u8 *base;
    u64 size, used;
} Memory;

/* NULL where the memory is too small; what is used counts on, so that it tells what is needed. */
static inline void *allot(Memory *memory, u64 bytes) {
    u64 at = memory->used;
    memory->used += (bytes + ALIGNMENT) & ~(u64)(ALIGNMENT - 1); /* at least one, so never none */
    return memory->used <= memory->size ? memory->base + at : NULL;
}

#endif
