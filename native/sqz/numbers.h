/* Functions of numbers, so that no C library is needed; to about 1e-15. */
#ifndef SQZ_NUMBERS_H
#define SQZ_NUMBERS_H

double sqz_exp(double x);
double sqz_log(double x); /* of a normal positive number */
double sqz_tanh(double x);
double sqz_erf(double x);
double sqz_rounded(double x); /* to a whole number, halves to even; below 2^51 */
double sqz_sqrt(double x); /* 0 below 1e-300 */

#endif
