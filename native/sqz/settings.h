/* Initializers that the graph keeps: shapes, axes, bounds, single numbers. */
#ifndef SQZ_SETTINGS_H
#define SQZ_SETTINGS_H

#include "record.h"

/* Makes a record of an initializer, which has been checked. */
void sqz_read_setting(Span message, Record *record);

/* Its whole numbers; returns how many, or ABSENT where they are none or more than `most`. */
u32 sqz_setting_integers(const Record *record, i64 *values, u32 most);

/* Its float32 numbers, as many as there are. */
void sqz_setting_floats(const Record *record, float *values);

/* Its one float32 number; 0 where it is another, or not finite. */
int sqz_setting_number(const Record *record, float *value);

/* Whether it is one BOOL that is false. */
int sqz_setting_is_false(const Record *record);

#endif
