/* What the metadata says. */
#ifndef SQZ_METADATA_H
#define SQZ_METADATA_H

#include "plan.h"

/* Fills what of `net` the metadata tells; how many classes it has names for, or 0. */
sqz_error sqz_read_metadata(sqz_network *net, u32 *names);

/* Whether there are ranges of activations, and the step and zero of each value that has one. */
int sqz_has_activations(const sqz_network *net);
void sqz_read_activations(const sqz_network *net, Plan *plan);

#endif
