/* The coder of .sqzd files: levels, floats and text, each coded by what another file has in its place.
 *
 * The same decisions as in entropy_coder.h, with other contexts: mostly whether a level moved, and
 * what those around it did. docs/format.md states every constant and rule used here.
 */
#define EXPORT static __attribute__((unused))
#include "entropy_coder.h"
#undef EXPORT
#define EXPORT __attribute__((visibility("default")))

/* ---- the slots lie where those of levels do; they are fresh for each tensor ---- */
enum { /* in node_near */
    MOVED_OLD = 0,       /* (old, moved around) */
    MOVED_PLACE = 256,   /* (size of old, place, not zero around) */
    MOVED_RECENT = 1280, /* (size of old, the last six) */
    MOVED_AROUND = 1536, /* (size of old, magnitudes around) */
    GONE_OLD = 2560,     /* (old, not zero around) */
    GONE_PLACE = 2816,   /* (size of old, place) */
    TURNED = 2944,       /* (magnitude of old) */
    LOUDER_OLD = 2960,   /* (old) */
    LOUDER_AROUND = 2992, /* (how those around moved) */
    SIGN_AROUND = 3073,  /* (signs around) */
    SIGN_PLACE = 3154,   /* (place) */
    AMOUNT = 3200,       /* (kind, step) */
    AMOUNT_OLD = 3328,   /* (kind, magnitude of old, step) */
    AMOUNT_BITS = 5376,  /* (kind, length, value so far) */
    MOVED_SLOTS = 7424
};

enum { SET_MOVED = 0, SET_GONE = 20, SET_TURNED, SET_LOUDER, SET_NEW_SIGN, SET_AMOUNT, SET_BITS = 32 };
enum { A_LEVEL, A_RISE, A_FALL, MOVED_FLOAT = 71 };

static u32 least(u32 value, u32 most) { return value < most ? value : most; }
static u32 old_of(i32 old) { return (u32)((old < -15 ? -15 : old > 15 ? 15 : old) + 15); }

/* How a level's magnitude moved: 0 not, 1 up, 2 down. */
static u32 way(i32 level, i32 old) {
    u32 a = magnitude_of(level), b = magnitude_of(old);
    return a > b ? 1 : a < b ? 2 : 0;
}

/* A number of at least 1: its bit length in unary, then the bits below the first. */
static u32 code_amount(Coder *coder, u32 amount, u32 kind, u32 old) {
    Slot *slot = coder->model->levels.node_near;
    u32 length = ENCODING(coder) ? bit_length(amount) - 1 : 0, n = 0, value = 1;
    for (;; n++) {
        Slot *const slots[] = {slot + AMOUNT + kind * 32 + n,
                               slot + AMOUNT_OLD + (kind * 16 + least(old, 15)) * 32 + n};
        if (n == 30 || !code_mixed(coder, n < length, slots, 2, SET_AMOUNT + least(n, 7))) break;
    }
    for (u32 left = n; left-- > 0;) {
        u32 bit = amount >> left & 1;
        if (value < 16)
            bit = code_with(coder, bit, slot + AMOUNT_BITS + (kind * 32 + n) * 16 + value,
                            SET_BITS + least(n, 7));
        else bit = code_bit(coder, bit, 32768);
        value = value << 1 | bit;
    }
    return value;
}

/* Codes levels of shape (rows, columns, height, width), each in -negatives .. positives, where `old`
 * has others within the same bounds. */
static void code_moved(Coder *coder, i32 *level, const i32 *old, const u32 *shape, u32 negatives,
                       u32 positives) {
    Model *model = coder->model;
    Slot *slot = model->levels.node_near, row_moved[4], row_gone, row_sign;
    u32 rows = shape[0], columns = shape[1], width = shape[3], area = shape[2] * width;
    u32 row_size = columns * area, recent = 0;
    fresh(slot, MOVED_SLOTS);
    fresh(model->levels.zero_column, columns < COLUMNS ? columns : COLUMNS);
    fresh(model->levels.sign_column, columns < COLUMNS ? columns : COLUMNS);
    for (u32 row = 0; row < rows && !coder->error; row++) {
        fresh(row_moved, 4);
        fresh(&row_gone, 1);
        fresh(&row_sign, 1);
        for (u32 column = 0; column < columns && !coder->error; column++) {
            u32 at = column & (COLUMNS - 1), x = 0, y = 0;
            for (u32 k = 0; k < area; k++, level++, old++) {
                i32 was = *old, value = *level, near[4] = {0}, before[4] = {0};
                u32 back[4] = {x ? 1 : 0, y ? width : 0, row ? row_size : 0, column ? area : 0};
                u32 moved = 0, present = 0, loud = 0, signs = 0, ways = 0;
                for (u32 i = 0; i < 4; i++) {
                    if (back[i]) near[i] = level[-(i64)back[i]], before[i] = old[-(i64)back[i]];
                    moved += near[i] != before[i];
                    present += near[i] != 0;
                    loud = loud << 2 | least(magnitude_of(near[i]), 3);
                    signs = signs * 3 + sign_of(near[i]);
                    ways = ways * 3 + way(near[i], before[i]);
                }
                u32 place = k < 31 ? k : 31, size = magnitude_of(was);
                u32 rank = size < 2 ? size : size < 4 ? 2 : 3;
                Slot *const slots[] = {
                    slot + MOVED_OLD + old_of(was) * 8 + moved,
                    (was ? model->levels.sign_column : model->levels.zero_column) + at,
                    row_moved + rank,
                    slot + MOVED_PLACE + (rank << 5 | place) * 8 + present,
                    slot + MOVED_RECENT + (rank << 6 | recent),
                    slot + MOVED_AROUND + (rank << 8 | loud),
                };
                if (++x == width) x = 0, y++;
                u32 differs = code_mixed(coder, value != was, slots, 6, SET_MOVED + rank * 5 + moved);
                recent = (recent << 1 | differs) & 63;
                if (!differs) {
                    *level = was;
                    continue;
                }
                u32 negative = was < 0, turned = 0, amount = magnitude_of(value);
                if (was) {
                    Slot *const gone[] = {slot + GONE_OLD + old_of(was) * 8 + present,
                                          slot + GONE_PLACE + (rank << 5 | place), &row_gone};
                    if (code_mixed(coder, value == 0, gone, 3, SET_GONE)) {
                        *level = 0;
                        continue;
                    }
                    turned = code_with(coder, (value < 0) != negative, slot + TURNED + least(size, 15),
                                       SET_TURNED);
                    negative ^= turned;
                } else {
                    Slot *const sign[] = {slot + SIGN_AROUND + signs, slot + SIGN_PLACE + place,
                                          &row_sign};
                    negative = code_mixed(coder, value < 0, sign, 3, SET_NEW_SIGN);
                }
                u32 most = negative ? negatives : positives;
                if (was && !turned) {
                    u32 louder = size < 2; /* what can be told is not coded */
                    Slot *const which[] = {slot + LOUDER_OLD + old_of(was),
                                           slot + LOUDER_AROUND + ways};
                    if (size > 1 && size < most)
                        louder = code_mixed(coder, amount > size, which, 2, SET_LOUDER);
                    if (louder) amount = size + code_amount(coder, amount - size, A_RISE, size);
                    else amount = size - code_amount(coder, size - amount, A_FALL, size);
                } else amount = code_amount(coder, amount, A_LEVEL, size);
                if (amount - 1 >= most) { /* of what cannot be; 0 and below too */
                    coder->error = OUT_OF_RANGE;
                    amount = 0; /* nothing that follows may overflow */
                }
                *level = negative ? -(i32)amount : (i32)amount;
            }
        }
    }
}

/* Codes float32 values whose lowest `drop` bits are all zero, as steps from old ones. */
static void code_moved_floats(Coder *coder, u32 *value, const u32 *old, u32 count, u32 drop) {
    Model *model = coder->model;
    FRESH(model->floats);
    u32 recent = 0, length = 0;
    for (u32 i = 0; i < count && !coder->error; i++) {
        u32 from = to_ordered(old[i]) >> drop, to = to_ordered(value[i]) >> drop;
        u32 differs = code_with(coder, to != from, model->floats.mantissa + recent, MOVED_FLOAT);
        recent = (recent << 1 | differs) & 15;
        if (differs) {
            u32 down = code_with(coder, to < from, &model->floats.sign, SET_FLOAT + 1);
            u32 step = down ? from - to : to - from;
            step = code_step(coder, step, &length, 32 - drop);
            if (coder->error) return;
            u64 next = down ? (u64)from - step : (u64)from + step;
            if (next >> (32 - drop)) {
                coder->error = OUT_OF_RANGE;
                return;
            }
            to = (u32)next;
        } else to = from;
        value[i] = from_ordered(to << drop | (to >> (31 - drop) ? 0 : (1u << drop) - 1));
    }
}

/* ---- what the host calls; each returns a size in bytes, or an error below zero ---- */
/* shape: rows, columns, height, width. */
EXPORT i32 moved(Model *model, i32 encoding, u8 *bytes, u32 size, i32 *levels, const i32 *old,
                 const u32 *shape, u32 negatives, u32 positives) {
    Coder coder = start(model, bytes, size, encoding);
    code_moved(&coder, levels, old, shape, negatives, positives);
    return result(&coder, bytes);
}

EXPORT i32 moved_floats(Model *model, i32 encoding, u8 *bytes, u32 size, u32 *values, const u32 *old,
                        u32 count, u32 drop) {
    Coder coder = start(model, bytes, size, encoding);
    code_moved_floats(&coder, values, old, count, drop);
    return result(&coder, bytes);
}

/* The text from `known` on; what is before is at hand. */
EXPORT i32 text_behind(Model *model, i32 encoding, u8 *bytes, u32 size, u8 *out, u32 known, u32 count) {
    Coder coder = start(model, bytes, size, encoding);
    code_text(&coder, out, count, known);
    return result(&coder, bytes);
}
