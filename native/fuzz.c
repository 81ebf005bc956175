/* Whatever a file holds: nothing outside of the given memory is touched. For libFuzzer:
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION \
 *     native/fuzz.c native/sqz/[a-z]*.c -o fuzz
 * bench/fuzz.py makes files to start from, runs it, and writes down what came of it.
 *
 * The first byte tells what the rest is: a file (0), or a head that is not deflated, behind its
 * length in two bytes, and the payloads (1). So that a changed byte is not only ever a checksum
 * that differs, such builds do not look at checksums.
 */
#include <stdlib.h>
#include <string.h>
#include "sqz/sqz.h"

enum { MOST_MEMORY = 8 << 20, MOST_MACS = 2000000, HEADER = 24, BLOCK = 5 };

static void put(uint8_t *at, size_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> 8 * i);
}

/* A .sqz with the head as one stored block of deflate. */
static uint8_t *wrap(const uint8_t *data, size_t size, size_t *file_bytes) {
    size_t head = size < 2 ? 0 : data[0] | (size_t)data[1] << 8;
    data += size < 2 ? size : 2;
    size -= size < 2 ? size : 2;
    if (head > size) head = size;
    *file_bytes = HEADER + BLOCK + size;
    uint8_t *file = calloc(*file_bytes, 1);
    memcpy(file, "\x89SQZ\1\0\1", 7);
    put(file + 8, *file_bytes, 4);
    put(file + 12, BLOCK + head, 4);
    put(file + 16, head, 4);
    file[HEADER] = 1;
    put(file + HEADER + 1, head, 2);
    put(file + HEADER + 3, ~head, 2);
    memcpy(file + HEADER + BLOCK, data, size);
    return file;
}

static void use(const sqz_network *net) {
    size_t inputs = (size_t)net->channels * (size_t)net->size * (size_t)net->size;
    char label[64];
    sqz_label(net, 1, label, sizeof label);
    if (net->macs > MOST_MACS || inputs > 1 << 18) return;
    float *input = calloc(inputs, sizeof *input), *output = calloc((size_t)net->classes, 4);
    const int32_t width = 7, height = 19;
    size_t bytes = sqz_image_bytes(&net->preprocessing, width, height);
    uint8_t pixels[7 * 19 * 3];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37);
    if (bytes && bytes < MOST_MEMORY) {
        sqz_image image;
        void *memory = malloc(bytes);
        sqz_image_start(&image, &net->preprocessing, width, height, memory);
        sqz_image_rows(&image, pixels, 3, 0, 10);
        sqz_image_rows(&image, pixels + 10 * 7 * 3, 3, 10, 9);
        sqz_image_finish(&image, input);
        free(memory);
    }
    sqz_run(net, input, output);
    sqz_softmax(output, net->classes);
    free(input);
    free(output);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t file_bytes = size ? size - 1 : 0, have = 0, need = 0;
    uint8_t *wrapped = NULL;
    const uint8_t *file = data + (size > 0);
    void *memory = NULL;
    sqz_network net;
    sqz_error error;
    if (size && data[0] & 1) file = wrapped = wrap(file, file_bytes, &file_bytes);
    while ((error = sqz_open(&net, file, file_bytes, memory, &need)) == SQZ_MEMORY) {
        if (need <= have) abort(); /* it would never end */
        if (need > MOST_MEMORY) break;
        free(memory);
        memory = malloc(have = need); /* exactly, so that a byte beyond is found */
    }
    sqz_error_text(error);
    if (!error) use(&net);
    free(memory);
    free(wrapped);
    return 0;
}
