/* From pixels to the network's input, resized as Pillow does it: fixed-point weights, rows first.
 *
 * Only the pixels that the crop keeps are computed; they are the same as those of the whole image
 * resized. Source of the method: Pillow's src/libImaging/Resample.c, and Geometry.c for "nearest".
 */
#include "basics.h"

enum {
    FRACTION_BITS = 22,   /* 8 bits of a pixel and 2 of headroom leave so many of 32 */
    MOST_PIXELS = 1 << 20 /* a side, before and after */
};

typedef struct {
    i32 from, to;       /* the source has `from` pixels, the whole result `to` */
    i32 start, count;   /* the part of the result that is wanted */
    double scale, support, stretch;
} Axis;

static double triangle(double x) {
    if (x < 0) x = -x;
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double cubic(double x) { /* Keys 1981, with a = -0.5 */
    const double a = -0.5;
    if (x < 0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

static Axis axis_of(const sqz_preprocessing *how, i32 from, i32 other) {
    Axis a;
    i64 to = how->resize;
    if (!how->warp && from > other) to = to * from / other;
    a.from = from;
    a.to = (i32)to;
    a.count = how->crop;
    a.start = (a.to - a.count) / 2;
    a.scale = (double)from / (double)to;
    a.stretch = a.scale < 1.0 ? 1.0 : a.scale;
    a.support = a.stretch * (how->interpolation == SQZ_BICUBIC ? 2.0 : 1.0);
    return a;
}

static i32 taps_of(const sqz_preprocessing *how, const Axis *a) {
    i32 whole = (i32)a->support;
    if (how->interpolation == SQZ_NEAREST) return 1;
    return (whole + (a->support > (double)whole)) * 2 + 1;
}

/* Which source pixels make each wanted one, and how much of each: 2^22 stands for 1. */
static void weigh(const sqz_preprocessing *how, const Axis *a, i32 taps, i32 *bounds, i32 *weights) {
    double (*filter)(double) = how->interpolation == SQZ_BICUBIC ? cubic : triangle;
    double nearest = a->scale * 0.5;
    for (i32 i = 0; i < a->start && how->interpolation == SQZ_NEAREST; i++) nearest += a->scale;
    for (i32 i = 0; i < a->count; i++, weights += taps, nearest += a->scale) {
        double centre = (a->start + i + 0.5) * a->scale, sum = 0.0;
        i32 low, high;
        if (how->interpolation == SQZ_NEAREST) { /* summed up as Pillow does, rounding included */
            low = nearest < a->from ? (i32)nearest : a->from - 1;
            bounds[2 * i] = low;
            bounds[2 * i + 1] = 1;
            weights[0] = 1 << FRACTION_BITS;
            continue;
        }
        double first = centre - a->support + 0.5, last = centre + a->support + 0.5;
        low = first < 0.0 ? 0 : (i32)first;
        high = last > a->from ? a->from : (i32)last;
        bounds[2 * i] = low;
        bounds[2 * i + 1] = high - low;
        for (i32 x = low; x < high; x++) sum += filter((x - centre + 0.5) * (1.0 / a->stretch));
        for (i32 x = low; x < high; x++) {
            double w = filter((x - centre + 0.5) * (1.0 / a->stretch));
            if (sum != 0.0) w /= sum;
            w *= 1 << FRACTION_BITS;
            weights[x - low] = (i32)(w < 0.0 ? w - 0.5 : w + 0.5);
        }
    }
}

static u8 clipped(i32 sum) {
    sum >>= FRACTION_BITS;
    return (u8)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static i32 channels_of(const sqz_preprocessing *how) { return how->color == SQZ_L ? 1 : 3; }

/* The rows of the source that the crop needs. */
static void needed_rows(sqz_image *image) {
    i32 last = image->how->crop - 1;
    const i32 *down = image->bounds[1];
    image->first_row = down[0];
    image->rows = down[2 * last] + down[2 * last + 1] - down[0];
}

size_t sqz_image_bytes(const sqz_preprocessing *how, int32_t width, int32_t height) {
    if (width < 1 || height < 1 || width > MOST_PIXELS || height > MOST_PIXELS) return 0;
    if (!how->warp) {
        i64 shorter = width < height ? width : height, longer = (i64)width + height - shorter;
        if (how->resize * longer / shorter > MOST_PIXELS) return 0;
    }
    Axis across = axis_of(how, width, height), down = axis_of(how, height, width);
    u64 crop = (u64)how->crop, taps = (u64)taps_of(how, &across) + (u64)taps_of(how, &down);
    u64 bytes = crop * (taps + 4) * sizeof(i32) + (u64)height * crop * (u64)channels_of(how);
    return bytes > (size_t)-1 ? 0 : (size_t)bytes;
}

sqz_error sqz_image_start(sqz_image *image, const sqz_preprocessing *how, int32_t width,
                          int32_t height, void *memory) {
    if (!sqz_image_bytes(how, width, height)) return SQZ_ARGUMENT;
    i32 *at = memory;
    image->how = how;
    image->width = width;
    image->height = height;
    for (i32 i = 0; i < 2; i++) {
        Axis axis = axis_of(how, i ? height : width, i ? width : height);
        image->taps[i] = taps_of(how, &axis);
        image->bounds[i] = at;
        image->weights[i] = at += 2 * how->crop;
        at += (size_t)how->crop * (size_t)image->taps[i];
        weigh(how, &axis, image->taps[i], image->bounds[i], image->weights[i]);
    }
    image->between = (u8 *)at;
    needed_rows(image);
    return SQZ_OK;
}

static i32 grey(const u8 *pixel) { /* ITU-R 601-2, as Pillow rounds it */
    return (pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16;
}

static void across(const sqz_image *image, const u8 *pixels, i32 pixel_bytes, u8 *out) {
    i32 channels = channels_of(image->how);
    const i32 *bounds = image->bounds[0], *weights = image->weights[0];
    for (i32 i = 0; i < image->how->crop; i++, bounds += 2, weights += image->taps[0]) {
        i32 sum[3] = {1 << (FRACTION_BITS - 1), 1 << (FRACTION_BITS - 1), 1 << (FRACTION_BITS - 1)};
        const u8 *pixel = pixels + (size_t)bounds[0] * (size_t)pixel_bytes;
        for (i32 x = 0; x < bounds[1]; x++, pixel += pixel_bytes) {
            i32 w = weights[x];
            if (channels == 1) sum[0] += w * (pixel_bytes == 1 ? *pixel : grey(pixel));
            else if (pixel_bytes == 1)
                for (i32 c = 0; c < 3; c++) sum[c] += w * *pixel;
            else
                for (i32 c = 0; c < 3; c++) sum[c] += w * pixel[c];
        }
        for (i32 c = 0; c < channels; c++) *out++ = clipped(sum[c]);
    }
}

void sqz_image_rows(sqz_image *image, const uint8_t *pixels, int32_t pixel_bytes, int32_t first,
                    int32_t rows) {
    size_t row_bytes = (size_t)image->width * (size_t)pixel_bytes;
    size_t between = (size_t)image->how->crop * (size_t)channels_of(image->how);
    for (i32 i = 0; i < rows; i++, pixels += row_bytes) {
        i32 row = first + i - image->first_row;
        if (row >= 0 && row < image->rows)
            across(image, pixels, pixel_bytes, image->between + (size_t)row * between);
    }
}

void sqz_image_finish(const sqz_image *image, float *input) {
    const sqz_preprocessing *how = image->how;
    i32 crop = how->crop, channels = channels_of(how);
    size_t row_bytes = (size_t)crop * (size_t)channels;
    const i32 *weights = image->weights[1];
    for (i32 y = 0; y < crop; y++, weights += image->taps[1]) {
        i32 first = image->bounds[1][2 * y], count = image->bounds[1][2 * y + 1];
        const u8 *rows = image->between + (size_t)(first - image->first_row) * row_bytes;
        for (i32 x = 0; x < crop * channels; x++) {
            i32 sum = 1 << (FRACTION_BITS - 1);
            for (i32 i = 0; i < count; i++) sum += weights[i] * rows[(size_t)i * row_bytes + (size_t)x];
            i32 channel = how->color == SQZ_BGR ? 2 - x % channels : x % channels;
            float value = (float)clipped(sum) * how->scale;
            value -= how->mean[channel];
            input[((size_t)channel * (size_t)crop + (size_t)y) * (size_t)crop +
                  (size_t)(x / channels)] = value / how->std[channel];
        }
    }
}
