/* What a C program needs of the metadata's JSON: the preprocessing, and the labels one by one. */
#include "metadata.h"

/* A reader that steps over values without a stack: strings, and how deep it is, are all it tracks.
 * What is no JSON ends it early, and then a key is missing. */

static void skip_space(Span *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static int accept(Span *s, u8 character) {
    skip_space(s);
    if (s->at == s->end || *s->at != character) return 0;
    s->at++;
    return 1;
}

/* A string's bytes between its quotes, escapes as they are. */
static int string(Span *s, Span *inside) {
    if (!accept(s, '"')) return 0;
    inside->at = s->at;
    while (s->at < s->end && *s->at != '"') s->at += *s->at == '\\' && s->end - s->at > 1 ? 2 : 1;
    inside->end = s->at;
    return accept(s, '"');
}

/* Steps over one value, whatever it is; `value` gets its bytes. */
static int value_of(Span *s, Span *value) {
    u32 depth = 0;
    Span inside;
    skip_space(s);
    value->at = s->at;
    do {
        skip_space(s);
        if (s->at == s->end) return 0;
        u8 c = *s->at;
        if (c == '"') {
            if (!string(s, &inside)) return 0;
            continue;
        }
        if (c == '{' || c == '[') depth++;
        else if (c == '}' || c == ']') {
            if (!depth--) return 0;
        }
        s->at++;
        if (!depth && c != '}' && c != ']') /* a number or a word */
            while (s->at < s->end && *s->at != ',' && *s->at != '}' && *s->at != ']') s->at++;
    } while (depth);
    value->end = s->at;
    return 1;
}

/* The value of a key of an object; of a key that is there twice the last, as Python has it. */
static int member(Span object, const char *key, Span *value) {
    Span name, next;
    int found = 0;
    if (!accept(&object, '{')) return 0;
    while (string(&object, &name) && accept(&object, ':') && value_of(&object, &next)) {
        if (is(name, key)) {
            *value = next;
            found = 1;
        }
        if (!accept(&object, ',')) break;
    }
    return found;
}

/* The value at a place of a list. */
static int item(Span list, u32 index, Span *value) {
    if (!accept(&list, '[')) return 0;
    for (u32 i = 0; value_of(&list, value); i++) {
        if (i == index) return 1;
        if (!accept(&list, ',')) return 0;
    }
    return 0;
}

/* A number, rounded to double as near as makes no difference to a float. */
static int number(Span s, double *value) {
    u64 digits = 0;
    i32 shift = 0, power = 0;
    int minus = accept(&s, '-'), down, any = 0, point = 0;
    for (; s.at < s.end && ((*s.at >= '0' && *s.at <= '9') || *s.at == '.'); s.at++) {
        if (*s.at == '.') {
            if (point++) return 0;
            continue;
        }
        any = 1;
        if (digits < 100000000000000000u) { /* 18 digits tell floats apart */
            digits = digits * 10 + (u64)(*s.at - '0');
            shift -= point;
        } else shift += !point;
        if (shift < -100000 || shift > 100000) return 0;
    }
    if (s.at < s.end && (*s.at | 32) == 'e') {
        s.at++;
        down = accept(&s, '-');
        if (!down) accept(&s, '+');
        for (; s.at < s.end && *s.at >= '0' && *s.at <= '9' && power < 10000; s.at++)
            power = power * 10 + (*s.at - '0');
        shift += down ? -power : power;
    }
    skip_space(&s);
    if (!any || s.at < s.end) return 0;
    double result = (double)digits, ten = 10.0;
    u32 steps = (u32)(shift < 0 ? -shift : shift);
    if (!digits) steps = 0;
    else if (steps > 400) return 0; /* beyond what a double holds */
    double scale = 1.0;
    for (; steps; steps >>= 1, ten *= ten)
        if (steps & 1) scale *= ten;
    *value = shift < 0 ? result / scale : result * scale;
    if (minus) *value = -*value;
    return *value - *value == 0.0;
}

static int float_member(Span object, const char *key, float *value) {
    Span text;
    double x;
    if (!member(object, key, &text) || !number(text, &x)) return 0;
    *value = (float)x;
    return *value - *value == 0.0f;
}

static int float_list(Span object, const char *key, u32 count, float *values) {
    Span list, text;
    double x;
    if (!member(object, key, &list)) return 0;
    for (u32 i = 0; i < count; i++) {
        if (!item(list, i, &text) || !number(text, &x)) return 0;
        values[i] = (float)x;
        if (values[i] - values[i] != 0.0f) return 0;
    }
    return !item(list, count, &text);
}

static int size_member(Span object, const char *key, i32 *value) {
    Span text;
    double x;
    if (!member(object, key, &text) || !number(text, &x) || x < 1.0 || x > 65536.0) return 0;
    *value = (i32)x;
    return (double)*value == x;
}

/* Which of some words a member is. */
static int word_member(Span object, const char *key, const char *const *words, u32 count,
                       u32 *which) {
    Span text, inside;
    if (!member(object, key, &text) || !string(&text, &inside)) return 0;
    for (*which = 0; *which < count; ++*which)
        if (is(inside, words[*which])) return 1;
    return 0;
}

static Span metadata_of(const sqz_network *net) {
    const u8 *at = (const u8 *)net->metadata.at;
    Span whole = {at, at + net->metadata.bytes};
    return whole;
}

sqz_error sqz_read_metadata(sqz_network *net) {
    static const char *const modes[] = {"short_side", "warp"};
    static const char *const colors[] = {"RGB", "BGR", "L"};
    static const char *const interpolations[] = {"nearest", "bilinear", "bicubic"};
    static const char *const outputs[] = {"logits", "probabilities"};
    sqz_preprocessing *p = &net->preprocessing;
    Span whole = metadata_of(net), how, ignored;
    u32 mode, color, interpolation, output = 0;
    if (!member(whole, "preprocessing", &how) || !size_member(how, "crop", &p->crop) ||
        !size_member(how, "resize", &p->resize) || p->crop > p->resize ||
        !word_member(how, "resize_mode", modes, 2, &mode) ||
        !word_member(how, "color", colors, 3, &color) ||
        !word_member(how, "interpolation", interpolations, 3, &interpolation))
        return SQZ_HEAD;
    if (member(whole, "output", &ignored) && !word_member(whole, "output", outputs, 2, &output))
        return SQZ_HEAD;
    p->warp = (i32)mode;
    p->color = (sqz_color)color;
    p->interpolation = (sqz_interpolation)interpolation;
    net->gives_probabilities = (i32)output;
    net->channels = p->color == SQZ_L ? 1 : 3;
    net->size = p->crop;
    u32 channels = (u32)net->channels;
    if (!float_member(how, "scale", &p->scale) || p->scale == 0.0f ||
        !float_list(how, "mean", channels, p->mean) || !float_list(how, "std", channels, p->std))
        return SQZ_HEAD;
    for (u32 i = 0; i < channels; i++)
        if (p->std[i] == 0.0f) return SQZ_HEAD;
    return SQZ_OK;
}

/* ---- labels ---- */

static u32 hex(Span *s) { /* the four digits after \u; 0 where they are none */
    u32 value = 0;
    for (u32 i = 0; i < 4; i++) {
        u32 c = s->at < s->end ? *s->at++ : 0;
        u32 digit = c - '0' < 10 ? c - '0' : (c | 32) - 'a' < 6 ? (c | 32) - 'a' + 10 : 16;
        if (digit > 15) return 0;
        value = value << 4 | digit;
    }
    return value;
}

static u32 escaped(Span *s) { /* the character after a backslash */
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (s->at == s->end) return '\\';
    u32 c = *s->at++;
    for (u32 i = 0; i < 5; i++)
        if (c == (u8)from[i]) return (u8)to[i];
    if (c != 'u') return c;
    c = hex(s);
    if (c >> 10 == 0x36 && size_of(*s) >= 6 && s->at[0] == '\\' && s->at[1] == 'u') {
        s->at += 2;
        c = 0x10000 + ((c & 1023) << 10) + (hex(s) & 1023); /* a pair of surrogates */
    }
    return c;
}

static u32 utf8(u32 c, u8 *out) {
    if (c < 0x80) {
        out[0] = (u8)c;
        return 1;
    }
    u32 more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    out[0] = (u8)(0xffu << (7 - more) | c >> 6 * more);
    for (u32 i = 1; i <= more; i++) out[i] = (u8)(0x80 | (c >> 6 * (more - i) & 63));
    return more + 1;
}

int sqz_label(const sqz_network *net, int32_t index, char *label, size_t label_bytes) {
    Span labels, text, inside;
    size_t used = 0;
    if (label_bytes) *label = 0;
    if (index < 0 || !label_bytes || !member(metadata_of(net), "labels", &labels) ||
        !item(labels, (u32)index, &text) || !string(&text, &inside))
        return 0;
    while (inside.at < inside.end) {
        u8 bytes[4] = {*inside.at++};
        u32 count = 1;
        if (*bytes == '\\') count = utf8(escaped(&inside), bytes);
        if (used + count >= label_bytes) break;
        for (u32 i = 0; i < count; i++) label[used++] = (char)bytes[i];
    }
    label[used] = 0;
    return 1;
}
