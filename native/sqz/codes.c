/* Codes: to and from numbers, in integers where sums become codes. */
#include "codes.h"
#include "vector.h"

#if INT8_LAYERS

Ratio sqz_ratio(double number) {
    Ratio ratio = {0x7fffffff, 1}; /* above any that there is: what is not 0 is beyond every code */
    u32 shift = 31;
    if (number >= 1073741824.0) return ratio;
    while (number < 0.5 && shift < 62) {
        number *= 2.0;
        shift++;
    }
    while (number >= 1.0) {
        number *= 0.5;
        shift--;
    }
    double scaled = number * 2147483648.0 + 0.5;
    ratio.multiplier = scaled >= 2147483647.0 ? 0x7fffffff : (i32)scaled;
    ratio.shift = shift;
    return ratio;
}

u32 sqz_code(float x, float step, u32 zero) {
    const float rounds = 12582912.0f; /* 1.5 * 2^23: adding it leaves whole numbers, halves to even */
    float code = x / step;
    code = code > -512.0f ? code < 512.0f ? code : 512.0f : -512.0f; /* -512 for what is no number */
    i32 whole = (i32)((code + rounds) - rounds) + (i32)zero;
    return (u32)(whole < 0 ? 0 : whole > 255 ? 255 : whole);
}

void sqz_put_mean(const Value *in, const Value *out, i64 sum, u32 count, void *y, u32 at) {
    float mean = (float)sum / (float)count;
    if (out->coded) ((u8 *)y)[at] = (u8)sqz_code(mean * (in->step / out->step), 1.0f, out->zero);
    else ((float *)y)[at] = mean * in->step;
}

void sqz_to_codes(const Value *out, const float *x, u8 *y) {
    for (u32 i = 0; i < out->count; i++) y[i] = (u8)sqz_code(x[i], out->step, out->zero);
}

void sqz_from_codes(const Value *in, const u8 *x, float *y) {
    for (u32 i = 0; i < in->count; i++) y[i] = (float)((i32)x[i] - (i32)in->zero) * in->step;
}

/* Halves are rounded up. */
void sqz_put_sums(const Node *node, const Filter *f, const Value *out, const i32 *sums, u32 count,
                  void *y, size_t at) {
    if (!out->coded) {
        float *to = (float *)y + at;
        for (u32 i = 0; i < count; i++) to[i] = (float)(i32)((u32)sums[i] + (u32)f->bias) * f->unit;
        return;
    }
    u8 *to = (u8 *)y + at;
    i64 half = (i64)1 << (f->ratio.shift - 1), low = node->low, high = node->high;
    u32 i = 0;
    if (f->ratio.shift > 31) {
        /* The same without signs: sums are 2^31 more, codes `more` more. */
        u64 multiplier = (u64)f->ratio.multiplier, more = (multiplier << 31 >> f->ratio.shift) + 1;
        u64 start = (u64)half + (more << f->ratio.shift) - (multiplier << 31);
        for (; i + 4 <= count; i += 4)
            scale_sums(sums + i, (u32)f->bias ^ 0x80000000u, (u32)multiplier, start, f->ratio.shift,
                       out->zero - (u32)more, node->low, node->high, to + i);
    }
    for (; i < count; i++) {
        i64 sum = (i32)((u32)sums[i] + (u32)f->bias);
        i64 code = ((sum * f->ratio.multiplier + half) >> f->ratio.shift) + out->zero;
        code = code < low ? low : code;
        to[i] = (u8)(code > high ? high : code);
    }
}

#endif
