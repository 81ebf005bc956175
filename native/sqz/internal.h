/* What the library's parts share. */
#ifndef SQZ_INTERNAL_H
#define SQZ_INTERNAL_H

#include "sqz.h"

typedef uint8_t u8;
typedef int32_t i32;
typedef uint32_t u32;
typedef int64_t i64;
typedef uint64_t u64;

/* Bytes that are still to be read. */
typedef struct {
    const u8 *at, *end;
} Span;

static inline u32 size_of(Span span) { return (u32)(span.end - span.at); }
static inline u32 little32(const u8 *p) {
    return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}
static inline u32 u32_min(u32 a, u32 b) { return a < b ? a : b; }

/* Limits; with these nothing below can overflow or take endlessly long. */
enum { MOST_AXES = 8, MOST_TENSORS = 4096, MOST_NODES = 1024, MOST_INPUTS = 8192 };
#define MOST_WEIGHTS (1u << 28) /* of all tensors, and of any one value in the graph */
#define MOST_HEAD_BYTES (64u << 20)

/* A tensor as the head describes it. */
typedef struct {
    Span name, parameters, payload;
    u32 coder, axes, shape[MOST_AXES], weights, checksum;
} Record;

/* ---- the way in, part by part ---- */

/* An LEB128 number of at most 10 bytes; 0 where it ends early or is more than `most`. */
int sqz_varint(Span *span, u64 most, u64 *value);

/* Raw deflate (RFC 1951) that must fill `out` and use up its input. */
sqz_error sqz_inflate(Span in, u8 *out, u32 size);

/* Scratch bytes that decoding a tensor needs beside its values, or an error. */
sqz_error sqz_tensor_scratch(const Record *record, u64 *bytes);
sqz_error sqz_tensor_decode(const Record *record, float *values, void *scratch);

/* coder.c and huffman.c; below zero where they fail. */
i32 sqz_entropy_floats(const u8 *bytes, u32 size, u32 *values, u32 count, u32 drop);
i32 sqz_entropy_shared(const u8 *bytes, u32 size, i32 *levels, const u32 *shape, u32 *table,
                       u32 centroids, u32 drop);
i32 sqz_huffman(const u8 *bytes, u32 size, uint16_t *symbols, u32 count, const u8 *lengths,
                u32 alphabet);

sqz_error sqz_read_metadata(sqz_network *net);

/* ---- the graph ---- */

typedef enum {
    CONV, GEMM, MAX_POOL, AVERAGE_POOL, GLOBAL_POOL, RELU, CONCAT, ADD, LRN, SOFTMAX,
    SAME /* its output is its input: Dropout, Flatten, a ReLU that became part of its input */
} Operator;

/* The image or the output of a node; its memory is its own or part of another value's. */
typedef struct {
    Span name;
    u32 shape[3];       /* channels, height, width */
    u32 axes;           /* 4, or 2 where it is flat: the height and width are 1 then */
    u32 root, offset;   /* the value whose memory it lies in (itself, if its own), floats */
    u32 first, last;    /* of a root: the nodes that write it first and read it last */
    u64 place;          /* of a root: floats from the start of the activations */
    u32 uses;
} Value;

typedef struct {
    Operator op;
    u32 inputs, first_input, output; /* inputs in plan->inputs; of the first: a value */
    u32 kernel[2], stride[2], before[2], after[2], dilation[2], groups, ceil;
    u32 relu, transposed, window;
    float alpha, beta, bias;
    const Record *weight, *addend; /* addend: the bias, or NULL */
    float *weights, *biases;
} Node;

struct sqz_plan {
    Record *records;
    Node *nodes;
    Value *values; /* value 0 is the image */
    u32 *inputs;   /* values, by node */
    u32 record_count, node_count, value_count, input_count, output;
    float *scratch; /* scratch_floats for packing, then the activations */
    float *activations;
    u64 scratch_floats, activation_floats;
};
typedef struct sqz_plan Plan;

/* Counts nodes, values and inputs of the graph, so that memory can be laid out for them. */
sqz_error sqz_graph_count(sqz_network *net, Span model, u32 *nodes, u32 *inputs);
/* Fills the plan, checks every shape, and lays out the activations. */
sqz_error sqz_graph_plan(sqz_network *net, Span model);

/* ---- running ---- */

/* Floats that a convolution's packed weights take, and that its packed pixels take while it runs. */
u64 sqz_packed_weights(const Node *node);
u64 sqz_packed_pixels(const Node *node);
/* Brings a convolution's weights into the order in which they are used. */
void sqz_pack_weights(const Node *node, const float *from, float *to);
/* Some of a convolution's pixels, counted through its rows; y has `plane` floats a channel, the
 * first of them for pixel `from`. */
void sqz_convolve(const Node *node, const Value *in, const Value *out, const float *x, float *y,
                  u32 from, u32 to, u32 plane, float *scratch);

double sqz_exp(double x);
double sqz_log(double x);

#endif
