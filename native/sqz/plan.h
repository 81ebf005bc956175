/* A network as it runs: nodes in order, and where their values lie. */
#ifndef SQZ_PLAN_H
#define SQZ_PLAN_H

#include "basics.h"
#include "record.h"

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

static inline u32 elements(const Value *value) {
    return value->shape[0] * value->shape[1] * value->shape[2];
}

#endif
