/* Shapes of values, and loops over them. */
#ifndef SQZ_SHAPES_H
#define SQZ_SHAPES_H

#include "plan.h"

/* Gives a value its shape; 0 where an axis is empty or the whole is too large. */
int sqz_set_shape(Value *value, u32 axes, const u64 *shape);

/* The shape of `in` but for one axis. */
int sqz_set_axis(Value *value, const Value *in, u32 axis, u64 size);

/* Height or width behind windows; 0 where not one fits. */
u32 sqz_windows(const Window *window, u32 size, u32 axis);

/* How far one step along each axis goes in an array of this shape. */
void sqz_strides(u32 axes, const u32 *shape, u32 *strides);

/* Joins loops that go on where the one inside of them ends. */
void sqz_simplify(Box *box);

#endif
