/* Where values lie while a network runs. */
#ifndef SQZ_PLACE_H
#define SQZ_PLACE_H

#include "plan.h"

/* Gives every value of a plan its place, and says how much memory a run needs. */
void sqz_place_values(Plan *plan);

#endif
