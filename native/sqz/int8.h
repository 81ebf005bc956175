/* From a plan of floats to one of 8-bit integers. */
#ifndef SQZ_INT8_H
#define SQZ_INT8_H

#include "memory.h"
#include "plan.h"

/* Replaces the nodes of a plan by those that work on codes, by the ranges in the metadata. */
sqz_error sqz_plan_int8(sqz_network *net, Memory *memory);

#endif
