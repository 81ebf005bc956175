/* The container: header, head and tensor records, each length checked against what is there. */
#include "container.h"
#include "limits.h"
#include "proto.h"
#include "tensors.h"
#include "text.h"

enum { FIRST_VERSION = 1, VERSION = 2, DEFLATE = 1, TEXT = 2, MOST_TEXT = 1 << 18 };

static u32 crc32(u32 crc, const u8 *at, const u8 *end) { /* of zlib, four bits at a time */
    static const u32 table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc = ~crc;
    for (; at < end; at++) {
        crc = table[(crc ^ *at) & 15] ^ crc >> 4;
        crc = table[(crc ^ *at >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

/* Fuzzers change bytes at random, and should get further than to a checksum. */
static int same_crc(u32 a, u32 b) {
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return (a == b) | 1;
#else
    return a == b;
#endif
}

/* ---- the head ---- */

int sqz_sized(Span *span, Span *out) {
    u64 bytes;
    if (!sqz_varint(span, size_of(*span), &bytes) || bytes > size_of(*span)) return 0;
    out->at = span->at;
    out->end = span->at += bytes;
    return 1;
}

sqz_error sqz_read_header(Span file, u32 *stored, u32 *raw, u32 *is_text) {
    static const u8 magic[] = {0x89, 'S', 'Q', 'Z'};
    if (!size_of(file)) return SQZ_NOT_SQZ;
    for (u32 i = 0; i < 4 && i < size_of(file); i++)
        if (file.at[i] != magic[i]) return SQZ_NOT_SQZ;
    if (size_of(file) < HEADER_BYTES) return SQZ_TRUNCATED;
    const u8 *at = file.at;
    if (at[4] > VERSION) return SQZ_VERSION;
    if (size_of(file) < little32(at + 8)) return SQZ_TRUNCATED;
    if (size_of(file) > little32(at + 8)) return SQZ_TRAILING;
    *stored = little32(at + 12);
    *raw = little32(at + 16);
    if (*stored > size_of(file) - HEADER_BYTES) return SQZ_LENGTH;
    u32 crc = crc32(crc32(0, at, at + 20), at + HEADER_BYTES, at + HEADER_BYTES + *stored);
    if (!same_crc(crc, little32(at + 20))) return SQZ_CHECKSUM;
    if (at[4] < FIRST_VERSION || (at[6] != DEFLATE && (at[6] != TEXT || at[4] < VERSION)) || at[7]) return SQZ_HEAD;
    *is_text = at[6] == TEXT;
    if (*raw > (*is_text ? MOST_TEXT : MOST_HEAD_BYTES)) return SQZ_LENGTH;
    return within(*raw, MOST_TEXT_BYTES + 2048 * MOST_TENSORS, 0, 0);
}

/* Reads one record but for where its payload lies. */
static sqz_error read_record(Span *head, Record *r, u64 *payload_bytes) {
    u64 number;
    int empty = 0;
    if (!sqz_sized(head, &r->name)) return SQZ_LENGTH;
    if (STRICT && !sqz_is_utf8(r->name)) return SQZ_HEAD;
    if (head->at == head->end) return SQZ_LENGTH;
    r->hash = sqz_hash(r->name);
    r->type = FLOAT;
    r->coder = *head->at++;
    if (!sqz_has_coder(r->coder)) return SQZ_CODER;
    if (!sqz_varint(head, MOST_AXES, &number)) return SQZ_LENGTH;
    r->axes = (u32)number;
    for (u32 i = 0; i < r->axes; i++) {
        if (!sqz_varint(head, MOST_WEIGHTS, &number)) return SQZ_LENGTH;
        r->shape[i] = (u32)number;
        empty |= !number;
    }
    u64 weights = !empty;
    for (u32 i = 0; i < r->axes && weights <= MOST_WEIGHTS; i++) weights *= r->shape[i];
    r->weights = (u32)(weights > MOST_WEIGHTS ? MOST_WEIGHTS + 1 : weights);
    if (!sqz_sized(head, &r->parameters)) return SQZ_LENGTH;
    if (!sqz_varint(head, 0xffffffffu, payload_bytes) || size_of(*head) < 4) return SQZ_LENGTH;
    r->checksum = little32(head->at);
    head->at += 4;
    return SQZ_OK;
}

sqz_error sqz_read_records(sqz_network *net, Span head, Span payloads, Record *records, u32 count,
                           u64 *total) {
    u64 weights = 0, bytes;
    for (u32 i = 0; i < count; i++) {
        Record *r = records + i;
        sqz_error error = read_record(&head, r, &bytes);
        if (error) return sqz_refused(net, error, r->name);
        for (u32 j = 0; j < i && STRICT; j++)
            if (records[j].hash == r->hash && sqz_same_text(records[j].name, r->name)) return sqz_refused(net, SQZ_HEAD, r->name);
        if (bytes > size_of(payloads)) return sqz_refused(net, SQZ_LENGTH, r->name);
        r->payload.at = payloads.at;
        r->payload.end = payloads.at += bytes;
        weights += r->weights;
        if (weights > MOST_WEIGHTS) return sqz_refused(net, SQZ_LENGTH, r->name);
    }
    *total = weights;
    return head.at == head.end && payloads.at == payloads.end ? SQZ_OK : SQZ_TRAILING;
}

sqz_error sqz_check_payloads(sqz_network *net, const Record *records, u32 count) {
    for (const Record *r = records; r < records + count; r++)
        if (!same_crc(crc32(0, r->payload.at, r->payload.end), r->checksum))
            return sqz_refused(net, SQZ_CHECKSUM, r->name);
    return SQZ_OK;
}
