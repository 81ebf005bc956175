/* Text byte by byte, and UTF-8. */
#include "text.h"

int sqz_same_text(Span a, Span b) {
    if (size_of(a) != size_of(b)) return 0;
    while (a.at < a.end)
        if (*a.at++ != *b.at++) return 0;
    return 1;
}

int sqz_is(Span text, const char *word) {
    for (; text.at < text.end; text.at++, word++)
        if (!*word || *text.at != (u8)*word) return 0;
    return !*word;
}

u32 sqz_hash(Span text) {
    u32 hash = 2166136261u;
    while (text.at < text.end) hash = (hash ^ *text.at++) * 16777619u;
    return hash;
}

sqz_error sqz_refused(sqz_network *net, sqz_error error, Span what) {
    net->detail.at = (const char *)what.at;
    net->detail.bytes = size_of(what);
    return error;
}

#if STRICT
int sqz_is_utf8(Span s) {
    while (s.at < s.end) {
        u32 c = *s.at++;
        if (c < 0x80) continue;
        u32 more = c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 4;
        if (more > 3 || size_of(s) < more) return 0;
        c &= 63u >> more;
        for (u32 i = 0; i < more; i++, s.at++) {
            if (*s.at >> 6 != 2) return 0;
            c = c << 6 | (*s.at & 63);
        }
        if (c < (more == 1 ? 0x80u : more == 2 ? 0x800u : 0x10000u) || c > 0x10ffff ||
            c >> 11 == 0x1b)
            return 0;
    }
    return 1;
}
#endif
