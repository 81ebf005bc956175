/* The metadata: checked as Python checks it, and what a C program needs of it. */
#include "metadata.h"
#include "json.h"
#include "numbers.h"
#include "limits.h"

static Span metadata_of(const sqz_network *net) {
    const u8 *at = (const u8 *)net->metadata.at;
    Span whole = {at, at + net->metadata.bytes};
    return whole;
}

/* ---- members of a kind; 0 where they are of another, or missing ---- */

#if STRICT
/* A string that is not too long. */
static int text(Span value) {
    Span inside;
    u8 bytes[4];
    u32 count = 0;
    if (!sqz_json_string(value, &inside)) return 0;
    while (inside.at < inside.end) {
        sqz_json_character(&inside, bytes);
        count += *bytes >> 6 != 2; /* a byte that goes on with a character is none */
    }
    return count <= MOST_CHARACTERS;
}

static int any_string(Span object, const char *key, int needed) {
    Span value;
    return sqz_json_member(object, key, &value) ? text(value) : !needed;
}

/* How many strings a list has; none where it is not there. */
static int strings(Span object, const char *key, u32 *count) {
    Span list, rest, value;
    *count = 0;
    if (!sqz_json_member(object, key, &list)) return 1;
    if (!sqz_json_open(list, '[', &rest)) return 0;
    for (; sqz_json_next(&rest, NULL, &value); ++*count)
        if (*count == MOST_STRINGS || !text(value)) return 0;
    return 1;
}
#endif

static int numbers(Span list, u32 count, double *values) {
    Span rest, value;
    if (!sqz_json_open(list, '[', &rest)) return 0;
    for (u32 i = 0; i < count; i++)
        if (!sqz_json_next(&rest, NULL, &value) || !sqz_json_number(value, values + i)) return 0;
    return !sqz_json_next(&rest, NULL, &value);
}

static int number(Span object, const char *key, double *number) {
    Span value;
    return sqz_json_member(object, key, &value) && sqz_json_number(value, number);
}

static int side(Span object, const char *key, i32 *pixels) {
    Span value;
    i64 found;
    if (!sqz_json_member(object, key, &value) || !sqz_json_integer(value, &found)) return 0;
    *pixels = (i32)found;
    return found >= 1 && found <= 65536;
}

/* Which of some words a member is. */
static int word(Span object, const char *key, const char *const *words, u32 count, u32 *which) {
    Span value, inside;
    if (!sqz_json_member(object, key, &value) || !sqz_json_string(value, &inside)) return 0;
    for (*which = 0; *which < count; ++*which)
        if (sqz_json_is(inside, words[*which])) return 1;
    return 0;
}

/* ---- the whole ---- */

static int read_preprocessing(Span how, sqz_preprocessing *p) {
    static const char *const modes[] = {"short_side", "warp"};
    static const char *const colors[] = {"RGB", "BGR", "L"};
    static const char *const interpolations[] = {"nearest", "bilinear", "bicubic"};
    u32 mode, color, interpolation;
    double scale, mean[3], std[3];
    Span means, stds;
    if (!side(how, "crop", &p->crop) || !side(how, "resize", &p->resize) || p->crop > p->resize ||
        !word(how, "resize_mode", modes, 2, &mode) || !word(how, "color", colors, 3, &color) ||
        !word(how, "interpolation", interpolations, 3, &interpolation))
        return 0;
    p->warp = (i32)mode;
    p->color = (sqz_color)color;
    p->interpolation = (sqz_interpolation)interpolation;
    u32 channels = p->color == SQZ_L ? 1 : 3;
    if (!number(how, "scale", &scale) || scale == 0.0 || !sqz_json_member(how, "mean", &means) ||
        !numbers(means, channels, mean) || !sqz_json_member(how, "std", &stds) ||
        !numbers(stds, channels, std))
        return 0;
    p->scale = (float)scale;
    for (u32 i = 0; i < channels; i++) {
        if (std[i] == 0.0) return 0;
        p->mean[i] = (float)mean[i];
        p->std[i] = (float)std[i];
    }
    return 1;
}

#if INT8_LAYERS
void sqz_read_activations(const sqz_network *net, Plan *plan) {
    Span object, rest, key, pair;
    if (!sqz_json_member(metadata_of(net), "activations", &object) || !sqz_json_open(object, '{', &rest)) return;
    while (sqz_json_next(&rest, &key, &pair)) {
        double range[2];
        u32 hash = sqz_json_hash(key);
        if (!numbers(pair, 2, range)) continue;
        for (u32 i = 0; i < plan->value_count; i++) {
            Value *value = plan->values + i;
            double width = range[1] - range[0];
            if (value->hash != hash || !sqz_json_same(key, value->name)) continue;
            value->step = (float)(width / 255.0);
            double zero = sqz_rounded(-range[0] / (double)value->step);
            value->zero = zero > 0.0 ? zero < 255.0 ? (u32)zero : 255 : 0;
        }
    }
}
#endif

int sqz_has_activations(const sqz_network *net) {
    Span object, rest, key, value;
    return sqz_json_member(metadata_of(net), "activations", &object) && sqz_json_open(object, '{', &rest) &&
           sqz_json_next(&rest, &key, &value);
}

#if STRICT
/* Ranges hold 0, and a float holds their 255th part: 2^-100 to 2^100. */
static int check_activations(Span whole) {
    Span object, rest, key, pair;
    double range[2];
    if (!sqz_json_member(whole, "activations", &object)) return 1;
    if (!sqz_json_open(object, '{', &rest)) return 0;
    while (sqz_json_next(&rest, &key, &pair))
        if (!numbers(pair, 2, range) || range[0] > 0.0 || range[1] < 0.0 ||
            range[1] - range[0] < 0x1p-100 || range[1] - range[0] > 0x1p100)
            return 0;
    return 1;
}

/* The six bits of a character of base64; 64 of a filler, 65 of any other. */
static u32 six_bits(u32 c) {
    if (c - 'A' < 26) return c - 'A';
    if (c - 'a' < 26) return c - 'a' + 26;
    if (c - '0' < 10) return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : c == '=' ? 64 : 65;
}

/* Marks of photos: none, or base64 of a byte from 1 to 23, two of a count, and more. */
static int check_marks(Span object, const char *key) {
    Span value, inside;
    u32 count = 0, fillers = 0, first = 0;
    if (!sqz_json_member(object, key, &value) || !sqz_json_string(value, &inside)) return 0;
    for (; inside.at < inside.end; count++) {
        u8 bytes[4];
        u32 six = sqz_json_character(&inside, bytes) > 1 ? 65 : six_bits(*bytes);
        if (six == 65 || (six == 64 ? count % 4 < 2 : fillers)) return 0;
        fillers += six == 64;
        if (count < 2) first = first << 6 | six;
    }
    u32 bytes = count / 4 * 3 - fillers;
    first >>= 4;
    return count % 4 == 0 && (!count || (bytes >= 4 && bytes <= 1 << 16 && first >= 1 && first < 24));
}

/* Photos that the network was trained on; nothing here wants them, but all readers judge alike. */
static int check_trained_on(Span whole) {
    Span list, rest, item, value;
    i64 photos, held_out, every;
    if (!sqz_json_member(whole, "trained_on", &list)) return 1;
    if (!sqz_json_open(list, '[', &rest)) return 0;
    while (sqz_json_next(&rest, NULL, &item)) {
        every = 1;
        if (!sqz_json_member(item, "photos", &value) || !sqz_json_integer(value, &photos) ||
            !sqz_json_member(item, "held_out", &value) || !sqz_json_integer(value, &held_out) ||
            (sqz_json_member(item, "every", &value) && !sqz_json_integer(value, &every)) ||
            photos < 0 || held_out < 0 || every < 1 || every > 0x7fffffff ||
            !check_marks(item, "marks") || !check_marks(item, "exceptions"))
            return 0;
    }
    return 1;
}

/* What nothing here wants, but all readers judge alike. */
static int check_rest(Span whole, u32 *names) {
    u32 labels, ids, lines;
    if (!any_string(whole, "name", 1) || !strings(whole, "labels", &labels) ||
        !strings(whole, "label_ids", &ids) || (labels && ids && labels != ids) ||
        !any_string(whole, "licence", 0) || !strings(whole, "provenance", &lines) ||
        !check_activations(whole) || !check_trained_on(whole))
        return 0;
    *names = labels ? labels : ids;
    return 1;
}
#endif

sqz_error sqz_read_metadata(sqz_network *net, u32 *names) {
    static const char *const outputs[] = {"logits", "probabilities"};
    Span whole = metadata_of(net), how, value;
    u32 output = 0;
    *names = 0;
#if STRICT
    if (!sqz_json_valid(whole) || !check_rest(whole, names)) return SQZ_HEAD;
#endif
    if (!sqz_json_member(whole, "preprocessing", &how) || !read_preprocessing(how, &net->preprocessing))
        return SQZ_HEAD;
    if (sqz_json_member(whole, "output", &value) && !word(whole, "output", outputs, 2, &output))
        return SQZ_HEAD;
    net->gives_probabilities = (i32)output;
    net->channels = net->preprocessing.color == SQZ_L ? 1 : 3;
    net->size = net->preprocessing.crop;
    return SQZ_OK;
}

/* ---- labels ---- */

int sqz_label(const sqz_network *net, int32_t index, char *label, size_t label_bytes) {
    Span labels, rest, value, inside;
    size_t used = 0;
    if (label_bytes) *label = 0;
    if (index < 0 || !label_bytes || !sqz_json_member(metadata_of(net), "labels", &labels) ||
        !sqz_json_open(labels, '[', &rest))
        return 0;
    for (i32 i = 0; i <= index; i++)
        if (!sqz_json_next(&rest, NULL, &value)) return 0;
    if (!sqz_json_string(value, &inside)) return 0;
    while (inside.at < inside.end) {
        u8 bytes[4];
        u32 count = sqz_json_character(&inside, bytes);
        if (used + count >= label_bytes) break; /* no half characters of escapes */
        for (u32 i = 0; i < count; i++) label[used++] = (char)bytes[i];
    }
    label[used] = 0;
    return 1;
}
