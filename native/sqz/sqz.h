/* Decodes a .sqz file and runs its network: C99, no dependency, no allocation.
 *
 * Everything is in memory that the caller provides; nothing is kept anywhere else. So any number
 * of threads may each open and run their own networks. The bytes of a file are never trusted:
 * whatever they are, nothing outside of the given memory is read or written.
 *
 *     sqz_network net;
 *     size_t bytes = 0;
 *     void *memory = NULL;
 *     while ((error = sqz_open(&net, file, file_bytes, memory, &bytes)) == SQZ_MEMORY)
 *         memory = realloc(memory, bytes);
 *
 * native/example.c classifies a photo in forty lines; native/README.md says more.
 */
#ifndef SQZ_H
#define SQZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What functions return; sqz_error_text puts each in a sentence. */
typedef enum {
    SQZ_OK = 0,
    SQZ_MEMORY,      /* more memory is needed: as much as is written to *memory_bytes */
    SQZ_NOT_SQZ,     /* the first bytes are not those of a .sqz */
    SQZ_VERSION,     /* written by a later version of the format */
    SQZ_TRUNCATED,   /* the file is shorter than its header says */
    SQZ_TRAILING,    /* there are bytes after the end of the file or of its head */
    SQZ_CHECKSUM,    /* a CRC-32 differs: the file is damaged */
    SQZ_LENGTH,      /* a stated length or count is impossible, or above this library's limits */
    SQZ_HEAD,        /* the head cannot be inflated or read */
    SQZ_GRAPH,       /* the graph is not a usable ONNX model */
    SQZ_CODER,       /* a tensor does not decode to its shape; detail has its name */
    SQZ_UNSUPPORTED, /* detail names the operator, or its setting, that this library lacks */
    SQZ_ARGUMENT,    /* an image without pixels; a precision that the file or this build lacks */
    SQZ_LIMIT        /* needs more than a file from a stranger may; see native/README.md */
} sqz_error;

/* What a network computes in. The default is SQZ_INT8 where the file has ranges of activations. */
typedef enum { SQZ_DEFAULT, SQZ_FLOAT, SQZ_INT8 } sqz_precision;

typedef enum { SQZ_RGB, SQZ_BGR, SQZ_L } sqz_color;
typedef enum { SQZ_NEAREST, SQZ_BILINEAR, SQZ_BICUBIC } sqz_interpolation;

/* How an image becomes an input; see docs/format.md. */
typedef struct {
    int32_t crop, resize; /* pixels */
    int32_t warp;         /* resize to resize x resize; else only the short side to resize */
    sqz_color color;
    sqz_interpolation interpolation;
    float scale, mean[3], std[3]; /* x = (pixel * scale - mean) / std */
} sqz_preprocessing;

/* Text in the caller's memory, in UTF-8; it does not end in a zero. */
typedef struct {
    const char *at;
    size_t bytes;
} sqz_text;

/* An open network. It and the memory must stay where they are; the file need not. */
typedef struct {
    int32_t channels, size; /* the input is float (channels, size, size) */
    int32_t classes;
    int32_t gives_probabilities; /* 0: the outputs are logits; call sqz_softmax for probabilities */
    uint64_t macs;               /* multiply-accumulates of one run */
    sqz_precision precision;     /* SQZ_FLOAT or SQZ_INT8 */
    /* Bytes of memory, known before any is decoded: the network's description, its weights, and what
     * opening and running need beside them, of which the larger counts. */
    uint64_t plan_bytes, weight_bytes, opening_bytes, running_bytes;
    sqz_preprocessing preprocessing;
    sqz_text metadata; /* a JSON object with the labels; see docs/format.md */
    sqz_text detail;   /* of an error: the name of a tensor or an operator; may be empty */
    sqz_text node;     /* of an error in the graph: the node where it is; may be empty */
    struct sqz_plan *plan;
} sqz_network;

/* Opens a file. *memory_bytes is the size of the memory. If that is too small, the size needed next
 * is written there and SQZ_MEMORY is returned (at most five times). memory may be NULL at first,
 * and must be aligned to 16 bytes, as malloc does. */
sqz_error sqz_open(sqz_network *net, const void *file, size_t file_bytes, void *memory,
                   size_t *memory_bytes);

/* The same in a precision of your choice. */
sqz_error sqz_open_as(sqz_network *net, sqz_precision precision, const void *file, size_t file_bytes,
                      void *memory, size_t *memory_bytes);

/* Runs the network: input is float (channels, size, size), output one float for each class. */
void sqz_run(const sqz_network *net, const float *input, float *output);

/* Logits to probabilities, in place. */
void sqz_softmax(float *values, int32_t count);

/* Copies the name of a class and a zero after it; a name that is too long is cut. Returns 0 if the
 * file has no such label. */
int sqz_label(const sqz_network *net, int32_t index, char *label, size_t label_bytes);

/* One sentence about an error. */
const char *sqz_error_text(sqz_error error);

/* ---- From pixels to the input: as Pillow resizes, to the last bit ---- */

/* An image that is being prepared. Its rows come from top to bottom, any number at a time, so that
 * the whole photo need not be in memory. */
typedef struct {
    const sqz_preprocessing *how;
    int32_t width, height;
    int32_t first_row, rows; /* the rows that the crop needs */
    int32_t taps[2];
    int32_t *bounds[2], *weights[2]; /* across, down: first pixel and count, fixed-point weights */
    uint8_t *between;                /* (rows, crop, channels): resized across only */
} sqz_image;

/* Bytes of memory that preparing an image of this size needs; 0 if the size is impossible. */
size_t sqz_image_bytes(const sqz_preprocessing *how, int32_t width, int32_t height);

/* Begins an image, upright and with 8 bits a channel. memory must be aligned to 4 bytes and have
 * sqz_image_bytes. */
sqz_error sqz_image_start(sqz_image *image, const sqz_preprocessing *how, int32_t width,
                          int32_t height, void *memory);

/* Takes `rows` rows from `first` on; a pixel has pixel_bytes: 1 (grey), 3 (RGB) or 4 (RGB and one
 * byte that is ignored). */
void sqz_image_rows(sqz_image *image, const uint8_t *pixels, int32_t pixel_bytes, int32_t first,
                    int32_t rows);

/* Writes the network's input. */
void sqz_image_finish(const sqz_image *image, float *input);

#ifdef __cplusplus
}
#endif

#endif
