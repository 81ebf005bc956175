/* Who has a name. */
#ifndef SQZ_NAMES_H
#define SQZ_NAMES_H

#include "plan.h"

/* The value of a name, or ABSENT. */
u32 sqz_find_value(const Plan *plan, Span name);

/* The tensor of a name, which is used from now on, or NULL. */
const Record *sqz_find_record(Plan *plan, Span name);

#endif
