/* A network as it runs: nodes in order, and where their values lie. */
#ifndef SQZ_PLAN_H
#define SQZ_PLAN_H

#include "basics.h"
#include "record.h"

typedef enum {
    CONV, DENSE_LAYER, MAX_POOL, AVERAGE_POOL, REDUCE, UNARY, BINARY, CONCAT, LRN, BATCH_NORM,
    SOFTMAX, MOVE, TO_CODES, FROM_CODES,
    SAME /* its output is its input: Flatten, a ReLU that became part of its input */
} Operator;

/* What a UNARY does; a and b are the node's alpha and beta. */
typedef enum {
    RELU, LEAKY_RELU, ELU, SIGMOID, HARD_SIGMOID, HARD_SWISH, TANH, CLIP, NEGATE, EXPONENTIAL,
    SQUARE_ROOT, SOFTPLUS, MISH, ERF, GELU, GELU_TANH
} Function;

typedef enum { ADD, SUBTRACT, MULTIPLY, DIVIDE, PRELU } Combination;

typedef enum { MEAN, SUM, LARGEST } Reduction;

/* The image or the output of a node, for one image; its memory is its own or part of another's. */
typedef struct {
    Span name;
    u32 hash, axes, shape[MOST_AXES], count; /* count: floats */
    u32 root, offset; /* the value whose memory it lies in (itself, if its own), floats */
    u32 first, last;  /* of a root: the nodes that write it first and read it last */
    u64 place;        /* of a root: bytes from the start of the activations */
    u32 uses, maker;  /* maker: the node that writes it; the image has none */
    u32 coded;        /* it is uint8 codes: x = (code - zero) * step; else it is floats */
    u32 zero;
    float step;
    u32 range; /* the first value that has the same range; see int8.c */
} Value;

/* Windows on height and width. */
typedef struct {
    u32 kernel[2], stride[2], before[2], after[2], dilation[2];
    u32 groups, ceil, counts_padding;
} Window;

/* Loops, the last innermost, and how far each step goes in two arrays. MOVE: x read, y written.
 * BINARY: both read, the output written in order. REDUCE: x read; each step of the first `kept`
 * loops gives one value. */
typedef struct {
    u32 axes, kept, extent[MOST_AXES], x[MOST_AXES], y[MOST_AXES], x_start, y_start;
} Box;

enum { MOST_CONSTANTS = 4 };

/* x * multiplier / 2^shift, rounded: how a sum of products becomes a code. */
typedef struct {
    i32 multiplier;
    u32 shift;
} Ratio;

/* A filter of a layer on codes. */
typedef struct {
    i32 bias; /* in units of a product */
    Ratio ratio;
    float unit; /* of a product */
} Filter;

typedef struct {
    Span name; /* for people */
    Operator op;
    u32 kind;   /* a Function, Combination or Reduction; of a SOFTMAX: whether of logarithms */
    u32 inputs, first_input, output; /* inputs in plan->inputs: values, or ABSENT for a constant */
    u64 padded; /* floats of its input with its padding, which some readers copy; see limits.h */
    u32 relu, transposed, rows, window, axis, fills;
    u32 moves, adds; /* Python's int8 plan knows it as one that only moves values, or as an Add */
    u32 codes;       /* works on codes; its output may be floats */
    u32 low, high;   /* between which codes its output's are kept */
    float alpha, beta, bias;
    union {
        Window window;
        Box box;
    } on;
    const Record *constant[MOST_CONSTANTS]; /* CONV, DENSE_LAYER: weight and bias, if any */
    float *values[MOST_CONSTANTS];
    i8 *weights; /* of a layer on codes */
    Filter *filters;
} Node;

struct sqz_plan {
    Record *records; /* those of the file, then those of the graph */
    Node *nodes;
    Value *values; /* value 0 is the image */
    u32 *inputs;   /* values, by node */
    u32 record_count, tensor_count, node_count, value_count, input_count, output;
    u32 opset, images; /* images: of the shapes that are looked at, 1 or 2 */
    u64 work, most_alive; /* multiply-accumulates, and floats that live at once; see limits.h */
    u8 *scratch; /* scratch_bytes for packing, then the activations */
    u8 *activations;
    u32 file_bytes, simd;
    u64 scratch_bytes, activation_bytes;
};
typedef struct sqz_plan Plan;

#endif
