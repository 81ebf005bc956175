/* The weights of a plan. */
#ifndef SQZ_WEIGHTS_H
#define SQZ_WEIGHTS_H

#include "memory.h"
#include "plan.h"

/* Lays out memory for weights and for running, and decodes the weights into it. */
sqz_error sqz_read_weights(sqz_network *net, Memory *memory);

#endif
