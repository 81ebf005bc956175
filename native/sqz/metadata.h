/* What the metadata says. */
#ifndef SQZ_METADATA_H
#define SQZ_METADATA_H

#include "basics.h"

/* Fills what of `net` the metadata tells; how many classes it has names for, or 0. */
sqz_error sqz_read_metadata(sqz_network *net, u32 *names);

#endif
