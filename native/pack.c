/* Packs the page's runtime: pack OUT BUILD. The page unpacks it. Its size stands first, in 3 bytes.
 *
 * Bits are predicted by logistic mixing of what followed the last 0 to 5 bytes, three choices among
 * the last three, and a longer match (Mahoney 2005), with three weights for each, chosen by the bits of this
 * byte, the last byte and the last but one, whose sums are averaged; and coded arithmetically. It stays with additions, multiplications and divisions, on which C and
 * JavaScript agree to the last bit (no fused ones: -ffp-contract=off). page.js says the same.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ORDERS = 6, CONTEXTS = ORDERS + 3, INPUTS = CONTEXTS + 1, SETS = 3, SLOT_BITS = 22, MOST_BYTES = 1 << 20 };

#define RATE 0.02 /* of the mixer's weights */
#define LIMIT 16  /* so many bits make a prediction as slow to change as it gets */
#define HASH 0x2f0b4c47u

static uint8_t history[MOST_BYTES];
static double stretched[4096], weights[1280 * INPUTS];
static float p[(1 << SLOT_BITS) + 64]; /* those of a match are the last */
static uint8_t n[(1 << SLOT_BITS) + 64];
static uint32_t hashes[CONTEXTS], keys[MOST_BYTES]; /* keys: of the bytes before each place */

/* 1 / (1 + exp(-x)), near enough: (1 - x / 1024) ^ 1024 for exp(-x). */
static double squash(double x) {
    x = 1 - (x > 12 ? 12 : x < -12 ? -12 : x) / 1024;
    for (int i = 0; i < 10; i++) x *= x;
    return 1 / (1 + x);
}

static void start(void) {
    int k = 0;
    for (int i = -2047; i < 2048; i++)
        while (k <= squash(i / 256.0) * 4095) stretched[k++] = i / 256.0;
    while (k < 4096) stretched[k++] = 8;
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) p[i] = 0.5f;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) weights[i] = 0.2;
}

static uint32_t before(size_t at, size_t back) { return at >= back ? history[at - back] : 0; }

int main(int count, char **names) {
    FILE *in = count == 3 ? fopen(names[2], "rb") : NULL, *out = in ? fopen(names[1], "wb") : NULL;
    if (!out) return 1;
    size_t size = fread(history, 1, MOST_BYTES, in), match = 0, length = 0;
    uint32_t low = 0, high = 0xffffffff;
    start();
    for (int shift = 0; shift < 24; shift += 8) putc((int)(size >> shift & 255), out);
    for (size_t done = 0; done < size;) {
        uint32_t byte = history[done], expected = match ? history[match] | 256u : 0, node = 1;
        for (int left = 8; left-- > 0;) {
            uint32_t at[INPUTS], on = expected >> (left + 1) == node, bit = byte >> left & 1;
            for (int i = 0; i < CONTEXTS; i++) at[i] = (hashes[i] + (uint32_t)i * 0x3d4d51cbu + node * 0x9e3779b1u) >> (32 - SLOT_BITS);
            uint32_t known = (uint32_t)(length < 15 ? length : 15) * 2 + (expected >> left & 1);
            at[CONTEXTS] = (1u << SLOT_BITS) + (on ? known : 32);
            uint32_t first[SETS] = {node + (on ? 256 * (1 + (length > 15)) : 0), 768 + before(done, 1),
                                    1024 + before(done, 2)};
            double x[INPUTS], miss[SETS], sum = 0;
            for (int i = 0; i < INPUTS; i++) x[i] = stretched[(int)(p[at[i]] * 4095)];
            for (int k = 0; k < SETS; k++) {
                double own = 0;
                for (int i = 0; i < INPUTS; i++) own += x[i] * weights[first[k] * INPUTS + i];
                miss[k] = (bit - squash(own)) * RATE;
                sum += own;
            }
            double guess = squash(sum / SETS);
            uint32_t middle = low + (uint32_t)((high - low) * (guess * 0.9998 + 0.0001));
            if (bit) high = middle;
            else low = middle + 1;
            for (int i = 0; i < INPUTS; i++) {
                for (int k = 0; k < SETS; k++) weights[first[k] * INPUTS + i] += miss[k] * x[i];
                p[at[i]] = (float)(p[at[i]] + (bit - (double)p[at[i]]) / (n[at[i]] + 1.5));
                n[at[i]] += n[at[i]] < LIMIT;
            }
            node = node * 2 + bit;
            for (; !((low ^ high) >> 24); low <<= 8, high = high << 8 | 255) putc((int)(high >> 24), out);
        }
        done++;
        for (uint32_t i = 1; i < ORDERS; i++) hashes[i] = (hashes[i - 1] + before(done, i) + i) * HASH;
        uint32_t last = before(done, 1), second = before(done, 2), third = before(done, 3);
        hashes[ORDERS] = (second + 9) * HASH;
        hashes[ORDERS + 1] = (hashes[ORDERS] + third + 1) * HASH;
        hashes[ORDERS + 2] = ((last + 19) * HASH + third + 1) * HASH;
        length = match && history[match] == byte ? length + 1 : 0;
        match += match > 0;
        uint32_t key = keys[done] = hashes[5];
        for (size_t i = done; !length && --i > 0;)
            if (keys[i] == key) {
                match = i;
                break;
            }
    }
    for (int shift = 24; shift >= 0; shift -= 8) putc((int)(high >> shift & 255), out);
    return ferror(in) || fclose(in) || fclose(out);
}
