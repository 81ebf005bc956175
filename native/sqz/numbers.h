/* Functions of numbers, so that no C library is needed; to about 1e-15. */
#ifndef SQZ_NUMBERS_H
#define SQZ_NUMBERS_H

#include "basics.h"

double sqz_exp(double x);
double sqz_log(double x);

#endif
