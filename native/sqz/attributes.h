/* The attributes of a node. */
#ifndef SQZ_ATTRIBUTES_H
#define SQZ_ATTRIBUTES_H

#include "basics.h"

enum { MOST_SIDE = 1 << 16, MOST_INTS = 16 }; /* of a kernel, a stride, a padding */

/* Every attribute that some operator has, in the order of the alphabet. */
typedef enum {
    AT_ALLOWZERO, AT_ALPHA, AT_APPROXIMATE, AT_AUTO_PAD, AT_AXES, AT_AXIS, AT_BETA, AT_BIAS,
    AT_CEIL_MODE, AT_COUNT_INCLUDE_PAD, AT_DILATIONS, AT_ENDS, AT_EPSILON, AT_GROUP,
    AT_KEEPDIMS, AT_KERNEL_SHAPE, AT_MAX, AT_MIN, AT_MODE, AT_MOMENTUM, AT_NOOP_WITH_EMPTY_AXES,
    AT_NUM_OUTPUTS, AT_PADS, AT_PERM, AT_RATIO, AT_SATURATE, AT_SEED, AT_SIZE, AT_SPATIAL,
    AT_SPLIT, AT_STARTS, AT_STORAGE_ORDER, AT_STRIDES, AT_TO, AT_TRAINING_MODE, AT_TRANSA,
    AT_TRANSB, AT_VALUE, ATTRIBUTES
} Attribute;

#define HAS(attribute) ((u64)1 << AT_##attribute)

/* Those that a node has, within their bounds. */
typedef struct {
    u64 given; /* a bit each */
    Span message[ATTRIBUTES];
} Attributes;

/* Reads those of a node, of which it may have `known`, each once and within its bounds. */
sqz_error sqz_read_attributes(Span node, u64 known, Attributes *attributes);

/* The value of one, or what it is where it is not given. */
i64 sqz_integer(const Attributes *attributes, Attribute which, i64 otherwise);
float sqz_real(const Attributes *attributes, Attribute which, float otherwise);
int sqz_is_text(const Attributes *attributes, Attribute which, const char *text);

/* Numbers of one that is given; returns how many there are, at most MOST_INTS. */
u32 sqz_integers_of(const Attributes *attributes, Attribute which, i64 values[MOST_INTS]);

#endif
