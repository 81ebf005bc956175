/* exp, log and their relatives by their series. */
#include "numbers.h"
#include "basics.h"

double sqz_exp(double x) { /* 2^n * e^r with |r| <= ln(2) / 2 */
    union {
        u64 bits;
        double value;
    } power;
    if (!(x > -700.0)) return 0.0;
    if (x > 700.0) x = 700.0;
    i32 n = (i32)(x * 1.4426950408889634 + (x < 0.0 ? -0.5 : 0.5));
    double r = x - n * 0.6931471805599453, sum = 1.0;
    for (i32 i = 14; i > 0; i--) sum = 1.0 + r * sum / i;
    power.bits = (u64)(n + 1023) << 52;
    return sum * power.value;
}

double sqz_log(double x) { /* of a normal positive number: n ln(2) + 2 atanh((m - 1) / (m + 1)) */
    union {
        double value;
        u64 bits;
    } m;
    m.value = x;
    i32 n = (i32)(m.bits >> 52) - 1023;
    m.bits = (m.bits & 0xfffffffffffffu) | (u64)1023 << 52;
    double t = (m.value - 1.0) / (m.value + 1.0), sum = 0.0;
    for (i32 i = 41; i > 0; i -= 2) sum = sum * t * t + 1.0 / i;
    return n * 0.6931471805599453 + 2.0 * t * sum;
}

double sqz_tanh(double x) {
    double e = sqz_exp(x < 0.0 ? 2.0 * x : -2.0 * x), y = (1.0 - e) / (1.0 + e);
    return x < 0.0 ? -y : y;
}

double sqz_sqrt(double x) { return x > 1e-300 ? sqz_exp(0.5 * sqz_log(x)) : 0.0; }

double sqz_erf(double x) { /* by its power series, and far out by a continued fraction */
    double size = x < 0.0 ? -x : x, y = 0.0;
    if (size < 2.5) {
        double power = size;
        for (i32 i = 0; i < 60; i++) {
            y += power / (2 * i + 1);
            power *= -size * size / (i + 1);
        }
        y *= 1.1283791670955126;
    } else {
        for (i32 i = 60; i > 0; i--) y = 0.5 * i / (size + y);
        y = 1.0 - sqz_exp(-size * size) / (size + y) * 0.5641895835477563;
    }
    return x < 0.0 ? -y : y;
}

double sqz_rounded(double x) {
    const double rounds = 6755399441055744.0; /* 1.5 * 2^52: adding it leaves whole numbers */
    return (x + rounds) - rounds;
}
