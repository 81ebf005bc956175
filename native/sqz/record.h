/* A tensor as the head of a file describes it. */
#ifndef SQZ_RECORD_H
#define SQZ_RECORD_H

#include "basics.h"

typedef struct {
    Span name, parameters, payload;
    u32 coder, axes, shape[MOST_AXES], weights, checksum;
} Record;

#endif
