/* The functions that the web page calls: one network, and memory that grows when needed.
 *
 * Memory: the file, the parts from sqz_open, input and output, and an image in preparation.
 */
#include "sqz/plan.h"

#define EXPORT __attribute__((visibility("default")))

enum { PAGE_BYTES = 1 << 16, STRIP_BYTES = 1 << 20 };

extern unsigned char __heap_base;

static sqz_network net;
static sqz_image image;
static float *input, *output;
static unsigned char *strip;
static uint32_t end; /* of what is in use */

/* The compiler copies and clears structures with these, and there is no C library here. */
void *memcpy(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memset(void *to, int byte, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) ((char *)to)[i] = (char)byte;
    return to;
}

/* Memory after all that is in use, or NULL if there is no more. */
static void *reserve(uint64_t bytes) {
    uint64_t start = (end + 15) & ~15u, stop = start + bytes;
    uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) * PAGE_BYTES;
    if (stop > 0xffffffffu - PAGE_BYTES) return NULL;
    if (stop > have) {
        uint32_t pages = (uint32_t)((stop - have + PAGE_BYTES - 1) / PAGE_BYTES);
        if (__builtin_wasm_memory_grow(0, pages) == (size_t)-1) return NULL;
    }
    end = (uint32_t)stop;
    return (void *)(size_t)start;
}

/* Where the file's bytes belong; 0 where there is no memory. */
EXPORT void *page_file(uint32_t bytes) {
    end = (uint32_t)(size_t)&__heap_base;
    return reserve(bytes);
}

/* Opens the file that lies there, in an sqz_precision; an sqz_error. */
EXPORT int page_open(void *file, uint32_t bytes, int precision) {
    size_t memory_bytes = 0;
    uint32_t before = end;
    void *memory = NULL;
    sqz_error error;
    while ((error = sqz_open_as(&net, (sqz_precision)precision, file, bytes, memory, &memory_bytes)) == SQZ_MEMORY) {
        end = before;
        memory = reserve(memory_bytes);
        if (!memory) return error;
    }
    if (error) return error;
    uint64_t size = (uint64_t)net.size;
    input = reserve((uint64_t)net.channels * size * size * sizeof(float));
    output = reserve((uint64_t)net.classes * sizeof(float));
    return input && output ? SQZ_OK : SQZ_MEMORY;
}

EXPORT const char *page_metadata(void) { return net.metadata.at; }
EXPORT size_t page_metadata_bytes(void) { return net.metadata.bytes; }
EXPORT int page_precision(void) { return (int)net.precision; }
EXPORT int page_classes(void) { return net.classes; }
EXPORT float *page_input(void) { return input; }

/* What Python asks beside. */
#if STRICT
EXPORT const char *page_detail(void) { return net.detail.at; }
EXPORT size_t page_detail_bytes(void) { return net.detail.bytes; }
EXPORT const char *page_node(void) { return net.node.at; }
EXPORT size_t page_node_bytes(void) { return net.node.bytes; }

/* Whether a convolution or a matrix product works on floats. */
EXPORT int page_float_layers(void) {
    u32 found = 0;
    for (const Node *node = net.plan->nodes; node < net.plan->nodes + net.plan->node_count; node++)
        found |= node->op <= DENSE_LAYER && !node->codes;
    return (int)found;
}
#endif

/* Begins an image. Returns the place for strips of its rows (RGBA, at most a mebibyte at a time, or
 * one row), or 0 if the image is impossible. */
EXPORT void *page_image(int width, int height) {
    uint32_t before = end;
    size_t bytes = sqz_image_bytes(&net.preprocessing, width, height);
    void *memory = bytes ? reserve(bytes) : NULL;
    strip = memory ? reserve(4 * width > STRIP_BYTES ? 4 * width : STRIP_BYTES) : NULL;
    end = before; /* the next image may have the same place */
    if (!strip) return NULL;
    sqz_image_start(&image, &net.preprocessing, width, height, memory);
    return strip;
}

EXPORT void page_rows(int first, int rows) { sqz_image_rows(&image, strip, 4, first, rows); }

/* Makes the network's input of the rows. */
EXPORT void page_finish(void) { sqz_image_finish(&image, input); }

/* Runs the network on its input; gives the outputs. */
EXPORT float *page_run(void) {
    sqz_run(&net, input, output);
    return output;
}
