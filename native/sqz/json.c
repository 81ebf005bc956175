/* JSON: checked once as a whole, then read by stepping over what is not wanted. */
#include "json.h"

enum { MOST_DIGITS = 4300 }; /* of an integer: where Python stops */

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

static int digit(const Span *s) { return s->at < s->end && *s->at >= '0' && *s->at <= '9'; }

/* The digits of a number in hexadecimal, or above 15. */
static u32 hex_digit(u32 c) {
    return c - '0' < 10 ? c - '0' : (c | 32) - 'a' < 6 ? (c | 32) - 'a' + 10 : 16;
}

#if STRICT
/* ---- is it JSON? ---- */

static int valid_string(Span *s) {
    if (!accept(s, '"')) return 0;
    while (s->at < s->end && *s->at != '"') {
        u8 c = *s->at++;
        if (c < 0x20) return 0;
        if (c != '\\') continue;
        if (s->at == s->end) return 0;
        c = *s->at++;
        if (c == 'u') {
            for (u32 i = 0; i < 4; i++, s->at++)
                if (s->at == s->end || hex_digit(*s->at) > 15) return 0;
        } else {
            const char *known = "\"\\/bfnrt";
            while (*known && (u8)*known != c) known++;
            if (!*known) return 0;
        }
    }
    return s->at++ < s->end;
}

static int valid_word(Span *s, const char *word) {
    const u8 *at = s->at;
    for (; *word; word++, at++)
        if (at == s->end || *at != (u8)*word) return 0;
    s->at = at;
    return 1;
}

static int valid_number(Span *s) {
    const u8 *start;
    if (s->at < s->end && *s->at == '-') s->at++;
    if (!digit(s)) return 0;
    start = s->at;
    if (*s->at == '0') s->at++;
    else
        while (digit(s)) s->at++;
    int whole = 1, many = s->at - start > MOST_DIGITS;
    Span ahead = *s;
    if (ahead.at < ahead.end && *ahead.at++ == '.' && digit(&ahead)) {
        while (digit(&ahead)) ahead.at++;
        *s = ahead;
        whole = 0;
    }
    ahead = *s;
    if (ahead.at < ahead.end && (*ahead.at++ | 32) == 'e') {
        if (ahead.at < ahead.end && (*ahead.at == '+' || *ahead.at == '-')) ahead.at++;
        if (digit(&ahead)) {
            while (digit(&ahead)) ahead.at++;
            *s = ahead;
            whole = 0;
        }
    }
    return !(whole && many);
}

static int valid_scalar(Span *s) {
    static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
    if (s->at < s->end && *s->at == '"') return valid_string(s);
    for (u32 i = 0; i < sizeof words / sizeof *words; i++)
        if (valid_word(s, words[i])) return 1;
    return valid_number(s);
}

static int valid_key(Span *s) { return valid_string(s) && accept(s, ':'); }

int sqz_json_valid(Span s) {
    u8 object[MOST_DEPTH + 1]; /* of each level: whether it is an object */
    u32 depth = 0;
    for (;;) {
        int open = 0; /* whether a value is complete, or begins with another */
        skip_space(&s);
        if (s.at < s.end && (*s.at == '{' || *s.at == '[')) {
            if (++depth > MOST_DEPTH) return 0;
            object[depth] = *s.at++ == '{';
            Span ahead = s;
            open = !accept(&ahead, object[depth] ? '}' : ']');
            if (open && object[depth] && !valid_key(&s)) return 0;
        } else if (!valid_scalar(&s)) return 0;
        while (!open) {
            if (!depth) {
                skip_space(&s);
                return s.at == s.end;
            }
            if (accept(&s, ',')) {
                if (object[depth] && !valid_key(&s)) return 0;
                open = 1;
            } else if (!accept(&s, object[depth--] ? '}' : ']')) return 0;
        }
    }
}

#endif

/* ---- its parts ---- */

static int string(Span *s, Span *inside) {
    if (!accept(s, '"')) return 0;
    inside->at = s->at;
    while (s->at < s->end && *s->at != '"') s->at += *s->at == '\\' && s->end - s->at > 1 ? 2 : 1;
    inside->end = s->at;
    return accept(s, '"');
}

/* Steps over one value, whatever it is. */
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
            while (s->at < s->end && *s->at != ',' && *s->at != '}' && *s->at != ']' &&
                   *s->at > ' ')
                s->at++;
    } while (depth);
    value->end = s->at;
    return 1;
}

int sqz_json_open(Span value, u8 bracket, Span *inside) {
    *inside = value;
    return accept(inside, bracket);
}

int sqz_json_next(Span *inside, Span *key, Span *value) {
    if (key && !(string(inside, key) && accept(inside, ':'))) return 0;
    if (!value_of(inside, value)) return 0;
    accept(inside, ',');
    return 1;
}

int sqz_json_member(Span object, const char *key, Span *value) {
    Span inside, name, next;
    int found = 0;
    if (!sqz_json_open(object, '{', &inside)) return 0;
    while (sqz_json_next(&inside, &name, &next))
        if (sqz_json_is(name, key)) {
            *value = next;
            found = 1;
        }
    return found;
}

/* ---- strings ---- */

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

static u32 four_digits(Span *s) { /* those behind \u */
    u32 value = 0;
    for (u32 i = 0; i < 4 && s->at < s->end; i++) value = value << 4 | (hex_digit(*s->at++) & 15);
    return value;
}

/* The character behind a backslash. */
static u32 escaped(Span *s) {
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    if (s->at == s->end) return '\\';
    u32 c = *s->at++;
    for (u32 i = 0; i < 5; i++)
        if (c == (u8)from[i]) return (u8)to[i];
    if (c != 'u') return c;
    c = four_digits(s);
    if (c >> 10 != 0x36 || size_of(*s) < 6 || s->at[0] != '\\' || s->at[1] != 'u') return c;
    Span ahead = {s->at + 2, s->end};
    u32 low = four_digits(&ahead);
    if (low >> 10 != 0x37) return c;
    *s = ahead;
    return 0x10000 + ((c & 1023) << 10) + (low & 1023); /* a pair of surrogates */
}

u32 sqz_json_character(Span *inside, u8 bytes[4]) {
    bytes[0] = *inside->at++;
    return bytes[0] == '\\' ? utf8(escaped(inside), bytes) : 1;
}

int sqz_json_string(Span value, Span *inside) {
    if (!string(&value, inside)) return 0;
    for (Span s = *inside; s.at < s.end;)
        if (*s.at++ == '\\' && escaped(&s) >> 11 == 0x1b) return 0; /* half of a pair */
    return 1;
}

int sqz_json_same(Span inside, Span text) {
    while (inside.at < inside.end) {
        u8 bytes[4];
        u32 count = sqz_json_character(&inside, bytes);
        for (u32 i = 0; i < count; i++)
            if (text.at == text.end || *text.at++ != bytes[i]) return 0;
    }
    return text.at == text.end;
}

#if INT8_LAYERS
u32 sqz_json_hash(Span inside) {
    u32 hash = 2166136261u;
    while (inside.at < inside.end) {
        u8 bytes[4];
        u32 count = sqz_json_character(&inside, bytes);
        for (u32 i = 0; i < count; i++) hash = (hash ^ bytes[i]) * 16777619u;
    }
    return hash;
}
#endif

int sqz_json_is(Span inside, const char *word) {
    Span text = {(const u8 *)word, (const u8 *)word};
    while (*text.end) text.end++;
    return sqz_json_same(inside, text);
}

/* ---- numbers ---- */

static double times_power_of_ten(double x, i32 power) {
    double scale = 1.0, ten = 10.0;
    for (u32 steps = (u32)(power < 0 ? -power : power); steps; steps >>= 1, ten *= ten)
        if (steps & 1) scale *= ten;
    return power < 0 ? x / scale : x * scale;
}

int sqz_json_number(Span s, double *value) {
    u64 digits = 0;
    i32 shift = 0, power = 0;
    int minus = accept(&s, '-'), down = 0, point = 0;
    if (!digit(&s)) return 0;
    for (; digit(&s) || (s.at < s.end && *s.at == '.'); s.at++) {
        if (*s.at == '.') point = 1;
        else if (digits < 100000000000000000u) { /* 18 digits tell floats apart */
            digits = digits * 10 + (u64)(*s.at - '0');
            shift -= point;
        } else shift += !point;
        if (shift < -100000 || shift > 100000) return 0;
    }
    if (s.at < s.end) { /* e */
        s.at++;
        if (s.at < s.end && (*s.at == '-' || *s.at == '+')) down = *s.at++ == '-';
        for (; digit(&s); s.at++)
            if (power < 1000000) power = power * 10 + (*s.at - '0');
        shift += down ? -power : power;
    }
    if (shift > 400) shift = 400; /* beyond what a double holds */
    if (shift < -400) shift = -400;
    /* In two steps: a power of ten alone may be beyond it where the number is not. */
    *value = times_power_of_ten(times_power_of_ten((double)digits, shift / 2), shift - shift / 2);
    if (!digits) *value = 0.0;
    if (minus) *value = -*value;
    return *value - *value == 0.0;
}

int sqz_json_integer(Span s, i64 *value) {
    int minus = accept(&s, '-');
    if (!digit(&s)) return 0;
    for (*value = 0; digit(&s); s.at++)
        if (*value < (i64)1 << 56) *value = *value * 10 + (*s.at - '0');
    if (minus) *value = -*value;
    return s.at == s.end;
}
