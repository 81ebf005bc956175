/* A tensor: of the file, as its head describes it, or an initializer that the graph keeps. */
#ifndef SQZ_RECORD_H
#define SQZ_RECORD_H

#include "basics.h"

/* Types of ONNX's tensors. */
enum { FLOAT = 1, INT32 = 6, INT64 = 7, BOOL = 9 };

enum { IN_GRAPH = 255 }; /* as a coder: an initializer of the graph; its message is `parameters` */

typedef struct {
    Span name, parameters, payload;
    u32 hash, type, coder, axes, shape[MOST_AXES], weights, checksum;
    u32 used; /* how often */
} Record;

#endif
