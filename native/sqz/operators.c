/* The operators that there are, and what each makes of its input. */
#include "operators.h"
#include "names.h"
#include "onnx.h"
#include "proto.h"
#include "settings.h"
#include "shapes.h"
#include "text.h"

/* ---- settings, which are attributes in older operator sets and inputs in newer ones ---- */

/* Numbers by attribute or by the input at a place; ABSENT where they cannot be, 0 where there are
 * none. */
static u32 whole_numbers(const Reader *r, Attribute which, u32 place, i64 values[MOST_INTS]) {
    int given = r->inputs > place && size_of(r->names[place]);
    if (r->attributes.given >> which & 1) return given ? ABSENT : sqz_integers_of(&r->attributes, which, values);
    if (!given) return 0;
    return r->records[place] ? sqz_setting_integers(r->records[place], values, MOST_INTS) : ABSENT;
}

static int real_number(const Reader *r, Attribute which, u32 place, float otherwise, float *value) {
    *value = sqz_real(&r->attributes, which, otherwise);
    if (r->inputs <= place || !size_of(r->names[place])) return 1;
    return r->records[place] && sqz_setting_number(r->records[place], value);
}

/* An axis counted from the front; ABSENT where there is none such. */
static u32 axis_of(i64 axis, u32 axes) {
    if (axis < 0) axis += axes;
    return axis < 0 || axis >= axes ? ABSENT : (u32)axis;
}

/* A bit for each of some axes; ABSENT where one cannot be or is there twice. */
static u32 axes_of(const i64 *list, u32 count, u32 axes) {
    u32 bits = 0;
    for (u32 i = 0; i < count; i++) {
        u32 axis = axis_of(list[i], axes);
        if (axis == ABSENT || bits >> axis & 1) return ABSENT;
        bits |= 1u << axis;
    }
    return bits;
}

/* ---- layers ---- */

static int has_shape(const Record *record, u32 axes, const u32 *shape) {
    if (!record || record->axes != axes || record->type != FLOAT) return 0;
    for (u32 i = 0; i < axes; i++)
        if (record->shape[i] != shape[i]) return 0;
    return 1;
}

/* Work of pools and LRN as well. */
static sqz_error count_work(Reader *r, u64 number, u64 times) {
    u64 most = (u64)1 << 60;
    if (number * times < most) r->plan->work += number * times;
    else r->plan->work = most;
    if (r->plan->work > most) r->plan->work = most;
    return SQZ_OK;
}

static sqz_error count_macs(Reader *r, u64 weights, u64 times) {
    r->net->macs += weights * times;
    return r->net->macs >> 60 ? SQZ_GRAPH : count_work(r, weights, times);
}

/* Windows of an image by the attributes, of a kernel that is known or given. */
static sqz_error read_window(Reader *r, Window *w, u32 channels) {
    const Attributes *a = &r->attributes;
    i64 kernel[MOST_INTS] = {0}, stride[MOST_INTS] = {1, 1}, dilation[MOST_INTS] = {1, 1};
    i64 pads[MOST_INTS] = {0};
    if (r->in->axes != 4) return SQZ_UNSUPPORTED;
    if (a->given & HAS(KERNEL_SHAPE)) {
        if (sqz_integers_of(a, AT_KERNEL_SHAPE, kernel) != 2) return SQZ_UNSUPPORTED;
        for (u32 i = 0; i < 2; i++) {
            if (w->kernel[i] && w->kernel[i] != kernel[i]) return SQZ_GRAPH;
            w->kernel[i] = (u32)kernel[i];
        }
    }
    if (!w->kernel[0] || w->kernel[0] > MOST_SIDE || !w->kernel[1] || w->kernel[1] > MOST_SIDE)
        return SQZ_GRAPH;
    if ((a->given & HAS(STRIDES) && sqz_integers_of(a, AT_STRIDES, stride) != 2) ||
        (a->given & HAS(DILATIONS) && sqz_integers_of(a, AT_DILATIONS, dilation) != 2) ||
        (a->given & HAS(PADS) && sqz_integers_of(a, AT_PADS, pads) != 4))
        return SQZ_GRAPH;
    int same = sqz_is_text(a, AT_AUTO_PAD, "SAME_UPPER") ? 1
             : sqz_is_text(a, AT_AUTO_PAD, "SAME_LOWER") ? 2 : 0;
    int valid = sqz_is_text(a, AT_AUTO_PAD, "VALID");
    if (a->given & HAS(AUTO_PAD) && !same && !valid && !sqz_is_text(a, AT_AUTO_PAD, "NOTSET"))
        return SQZ_UNSUPPORTED;
    if (a->given & HAS(AUTO_PAD) && (same || valid) && (pads[0] || pads[1] || pads[2] || pads[3]))
        return SQZ_GRAPH;
    u64 padded = 1;
    for (u32 i = 0; i < 2; i++) {
        w->stride[i] = (u32)stride[i];
        w->dilation[i] = (u32)dilation[i];
        if (same) {
            i64 size = r->in->shape[2 + i], span = (i64)w->dilation[i] * (w->kernel[i] - 1) + 1;
            i64 total = ((size + stride[i] - 1) / stride[i] - 1) * stride[i] + span - size;
            total = total < 0 ? 0 : total;
            pads[i] = same == 1 ? total / 2 : total - total / 2;
            pads[2 + i] = total - pads[i];
        }
        if (pads[i] < 0 || pads[2 + i] < 0 || (!same && (pads[i] > MOST_SIDE || pads[2 + i] > MOST_SIDE)))
            return SQZ_UNSUPPORTED;
        w->before[i] = (u32)pads[i];
        w->after[i] = (u32)pads[2 + i];
    }
    w->ceil = (u32)sqz_integer(a, AT_CEIL_MODE, 0);
    u64 shape[] = {r->in->shape[0], channels, sqz_windows(w, r->in->shape[2], 0),
                   sqz_windows(w, r->in->shape[3], 1)};
    for (u32 i = 0; i < 2; i++) {
        u64 room = (u64)r->in->shape[2 + i] + w->before[i] + w->after[i];
        u64 reach = (shape[2 + i] - 1) * w->stride[i] + (u64)w->dilation[i] * (w->kernel[i] - 1) + 1;
        if (!shape[2 + i] || room >> 30) return SQZ_GRAPH;
        padded *= reach > room ? reach : room;
    }
    u64 planes = (u64)r->in->shape[0] * r->in->shape[1], least = r->in->count / planes;
    /* More than may be in any case is not multiplied on. */
    if (padded > least) r->node->padded = padded >> 30 ? padded : padded * planes;
    return sqz_set_shape(r->out, 4, shape) ? SQZ_OK : SQZ_GRAPH;
}

static sqz_error plan_conv(Reader *r) {
    Node *node = r->node;
    Window *w = &node->on.window;
    const Record *weight = r->records[1], *bias = r->records[2];
    w->groups = (u32)sqz_integer(&r->attributes, AT_GROUP, 1);
    if (!weight || r->in->axes != 4 || weight->axes != 4) return SQZ_UNSUPPORTED;
    u32 channels = r->in->shape[1], filters = weight->shape[0];
    u32 shape[4] = {filters, channels / w->groups, weight->shape[2], weight->shape[3]};
    if (!has_shape(weight, 4, shape) || !filters || channels % w->groups || filters % w->groups ||
        (size_of(r->names[2]) && !has_shape(bias, 1, &filters)))
        return SQZ_GRAPH;
    node->constant[0] = weight;
    node->constant[1] = bias;
    w->kernel[0] = weight->shape[2];
    w->kernel[1] = weight->shape[3];
    sqz_error error = read_window(r, w, filters);
    if (error) return error;
    return count_macs(r, weight->weights, (u64)r->out->shape[2] * r->out->shape[3]);
}

/* Matrix products with a stored one: y = alpha * x w + beta * c, for every row of x. */
static sqz_error plan_dense(Reader *r) {
    Node *node = r->node;
    const Attributes *a = &r->attributes;
    const Record *weight = r->records[1], *bias = r->records[2];
    int gemm = sqz_is(r->operator, "Gemm");
    if (r->values[0] == ABSENT || !weight || sqz_integer(a, AT_TRANSA, 0)) return SQZ_UNSUPPORTED;
    if (weight->axes != 2 || (gemm && r->in->axes != 2) || r->in->axes < 2) return SQZ_UNSUPPORTED;
    node->transposed = (u32)sqz_integer(a, AT_TRANSB, 0);
    u32 features = r->in->shape[r->in->axes - 1], outputs = weight->shape[!node->transposed];
    u32 shape[2] = {node->transposed ? outputs : features, node->transposed ? features : outputs};
    if (!has_shape(weight, 2, shape) || !outputs) return SQZ_GRAPH;
    if (bias) { /* one for each output, or one for all */
        u32 last = bias->axes ? bias->shape[bias->axes - 1] : 1;
        if (bias->type != FLOAT || bias->weights != last || (last != 1 && last != outputs))
            return SQZ_UNSUPPORTED;
    } else if (size_of(r->names[2])) return SQZ_UNSUPPORTED;
    node->constant[0] = weight;
    node->constant[1] = bias;
    node->rows = r->in->count / features;
    node->alpha = sqz_real(a, AT_ALPHA, 1.0f);
    node->beta = sqz_real(a, AT_BETA, 1.0f);
    if (!sqz_set_axis(r->out, r->in, r->in->axes - 1, outputs)) return SQZ_GRAPH;
    return count_macs(r, weight->weights, node->rows);
}

static sqz_error plan_pool(Reader *r) {
    Window *w = &r->node->on.window;
    sqz_error error = read_window(r, w, r->in->axes > 1 ? r->in->shape[1] : 1);
    if (error) return error;
    w->counts_padding = (u32)sqz_integer(&r->attributes, AT_COUNT_INCLUDE_PAD, 0);
    for (u32 i = 0; i < 2; i++) {
        if (r->node->op == AVERAGE_POOL && w->dilation[i] != 1) return SQZ_UNSUPPORTED;
        /* So no window lies in the padding as a whole. */
        if (r->attributes.given & HAS(PADS) && (w->before[i] >= w->kernel[i] || w->after[i] >= w->kernel[i]))
            return SQZ_GRAPH;
    }
    return count_work(r, r->out->count, (u64)w->kernel[0] * w->kernel[1]);
}

static sqz_error plan_batch_norm(Reader *r) {
    u32 channels = r->in->axes > 1 ? r->in->shape[1] : 0;
    for (u32 i = 0; i < 4; i++) {
        if (!has_shape(r->records[1 + i], 1, &channels)) return SQZ_GRAPH;
        r->node->constant[i] = r->records[1 + i];
    }
    r->node->alpha = sqz_real(&r->attributes, AT_EPSILON, 1e-5f);
    return SQZ_OK;
}

static sqz_error plan_lrn(Reader *r) {
    const Attributes *a = &r->attributes;
    Node *node = r->node;
    if (!(a->given & HAS(SIZE)) || r->in->axes != 4) return SQZ_GRAPH;
    node->window = (u32)sqz_integer(a, AT_SIZE, 0);
    node->alpha = sqz_real(a, AT_ALPHA, 1e-4f);
    node->beta = sqz_real(a, AT_BETA, 0.75f);
    node->bias = sqz_real(a, AT_BIAS, 1.0f);
    return count_work(r, r->in->count, u32_min(node->window, r->in->shape[1]));
}

/* ---- one number after another ---- */

static sqz_error plan_unary(Reader *r) {
    const Attributes *a = &r->attributes;
    Node *node = r->node;
    switch (node->kind) {
    case LEAKY_RELU: node->alpha = sqz_real(a, AT_ALPHA, 0.01f); break;
    case ELU: node->alpha = sqz_real(a, AT_ALPHA, 1.0f); break;
    case HARD_SIGMOID:
        node->alpha = sqz_real(a, AT_ALPHA, 0.2f);
        node->beta = sqz_real(a, AT_BETA, 0.5f);
        break;
    case GELU:
        if (sqz_is_text(a, AT_APPROXIMATE, "tanh")) node->kind = GELU_TANH;
        else if (a->given && !sqz_is_text(a, AT_APPROXIMATE, "none")) return SQZ_UNSUPPORTED;
        break;
    case CLIP:
        if (!real_number(r, AT_MIN, 1, -3.402823466e38f, &node->alpha) ||
            !real_number(r, AT_MAX, 2, 3.402823466e38f, &node->beta))
            return SQZ_UNSUPPORTED;
        break;
    default: break;
    }
    return SQZ_OK;
}

/* Two operands of one shape, or of which one is repeated along some axes (NumPy's broadcasting). */
static sqz_error plan_binary(Reader *r) {
    Node *node = r->node;
    Box *box = &node->on.box;
    u32 axes[2], *strides[2] = {box->x, box->y};
    const u32 *shape[2];
    u64 out[MOST_AXES];
    if (r->inputs != 2) return SQZ_UNSUPPORTED; /* Sum */
    node->inputs = 2;
    for (u32 i = 0; i < 2; i++) {
        const Record *record = r->records[i];
        if (record && record->type != FLOAT) return SQZ_UNSUPPORTED;
        node->constant[i] = record;
        r->plan->inputs[node->first_input + i] = r->values[i];
        axes[i] = record ? record->axes : r->plan->values[r->values[i]].axes;
        shape[i] = record ? record->shape : r->plan->values[r->values[i]].shape;
    }
    box->axes = axes[0] > axes[1] ? axes[0] : axes[1];
    for (u32 i = 0; i < box->axes; i++) out[i] = 1;
    for (u32 i = 0; i < 2; i++)
        for (u32 j = 0; j < axes[i]; j++) {
            u64 *size = out + box->axes - axes[i] + j;
            if (shape[i][j] == 1) continue;
            if (*size != 1 && *size != shape[i][j]) return SQZ_GRAPH;
            *size = shape[i][j];
        }
    for (u32 i = 0; i < box->axes && node->kind == PRELU; i++)
        if (axes[0] != box->axes || out[i] != shape[0][i]) return SQZ_GRAPH;
    if (!sqz_set_shape(r->out, box->axes, out)) return SQZ_GRAPH;
    for (u32 i = 0; i < box->axes; i++) box->extent[i] = r->out->shape[i];
    for (u32 i = 0; i < 2; i++) {
        u32 own[MOST_AXES], before = box->axes - axes[i];
        sqz_strides(axes[i], shape[i], own);
        for (u32 j = 0; j < box->axes; j++)
            strides[i][j] = j < before || shape[i][j - before] == 1 ? 0 : own[j - before];
    }
    sqz_simplify(box);
    return SQZ_OK;
}

static sqz_error plan_softmax(Reader *r) {
    const Attributes *a = &r->attributes;
    int old = r->plan->opset < 13; /* then everything from that axis on is one row */
    u32 axis = axis_of(sqz_integer(a, AT_AXIS, old ? 1 : -1), r->in->axes);
    if (axis == ABSENT) return SQZ_GRAPH;
    r->node->axis = axis;
    r->node->rows = (u32)old;
    return SQZ_OK;
}

static sqz_error plan_reduce(Reader *r, int global) {
    const Attributes *a = &r->attributes;
    Box *box = &r->node->on.box;
    i64 list[MOST_INTS];
    u32 all = (1u << r->in->axes) - 1, bits = all & ~3u, keep = 1, axes = 0;
    u32 strides[MOST_AXES];
    u64 shape[MOST_AXES];
    if (global && r->in->axes != 4) return SQZ_GRAPH;
    if (!global) {
        u32 count = whole_numbers(r, AT_AXES, 1, list);
        if (count == ABSENT) return SQZ_UNSUPPORTED;
        bits = axes_of(list, count, r->in->axes);
        if (bits == ABSENT) return SQZ_GRAPH;
        if (!count) bits = sqz_integer(a, AT_NOOP_WITH_EMPTY_AXES, 0) ? 0 : all;
        keep = (u32)sqz_integer(a, AT_KEEPDIMS, 1);
    }
    sqz_strides(r->in->axes, r->in->shape, strides);
    for (u32 reduced = 0; reduced < 2; reduced++) {
        for (u32 i = 0; i < r->in->axes; i++) {
            if ((bits >> i & 1) != reduced) continue;
            box->extent[box->axes] = r->in->shape[i];
            box->x[box->axes++] = strides[i];
        }
        if (!reduced) box->kept = box->axes;
    }
    for (u32 i = 0; i < r->in->axes; i++)
        if (!(bits >> i & 1)) shape[axes++] = r->in->shape[i];
        else if (keep) shape[axes++] = 1;
    if (!sqz_set_shape(r->out, axes, shape)) return SQZ_GRAPH;
    sqz_simplify(box);
    return SQZ_OK;
}

/* ---- only moved ---- */

/* A copy of all of x to the start of y, to be changed. */
static void plan_copy(Reader *r) {
    Box *box = &r->node->on.box;
    box->axes = r->in->axes;
    for (u32 i = 0; i < box->axes; i++) box->extent[i] = r->in->shape[i];
    sqz_strides(box->axes, r->in->shape, box->x);
}

static sqz_error finish_copy(Reader *r, u32 axes, const u64 *shape) {
    Box *box = &r->node->on.box;
    if (!sqz_set_shape(r->out, axes, shape)) return SQZ_GRAPH;
    sqz_strides(axes, r->out->shape, box->y);
    return SQZ_OK;
}

static sqz_error plan_transpose(Reader *r) {
    Box *box = &r->node->on.box;
    u32 axes = r->in->axes, strides[MOST_AXES];
    i64 order[MOST_INTS];
    u64 shape[MOST_AXES];
    for (u32 i = 0; i < axes; i++) order[i] = (i64)axes - 1 - i;
    if (r->attributes.given && sqz_integers_of(&r->attributes, AT_PERM, order) != axes) return SQZ_GRAPH;
    if (axes_of(order, axes, axes) == ABSENT) return SQZ_GRAPH;
    plan_copy(r);
    sqz_strides(axes, r->in->shape, strides);
    for (u32 i = 0; i < axes; i++) {
        shape[i] = box->extent[i] = r->in->shape[order[i]];
        box->x[i] = strides[order[i]];
    }
    sqz_error error = finish_copy(r, axes, shape);
    sqz_simplify(box);
    return error;
}

/* Keeps `count` of an axis, from `start` on in steps. */
static void keep(Box *box, u64 *shape, u32 axis, u64 start, u64 step, u64 count) {
    box->x_start += (u32)(start * box->x[axis]);
    box->x[axis] *= (u32)step;
    box->extent[axis] = (u32)count;
    shape[axis] = count;
}

static sqz_error plan_slice(Reader *r) {
    Box *box = &r->node->on.box;
    i64 starts[MOST_INTS], ends[MOST_INTS], axes[MOST_INTS], steps[MOST_INTS];
    u64 shape[MOST_AXES];
    u32 count = whole_numbers(r, AT_STARTS, 1, starts), many = whole_numbers(r, AT_ENDS, 2, ends);
    u32 named = whole_numbers(r, AT_AXES, 3, axes);
    u32 stepped = r->inputs > 4 && size_of(r->names[4]) ? ABSENT : 0;
    if (stepped && r->records[4]) stepped = sqz_setting_integers(r->records[4], steps, MOST_INTS);
    if (count == ABSENT || many == ABSENT || named == ABSENT || stepped == ABSENT) return SQZ_UNSUPPORTED;
    if (!(r->attributes.given & HAS(STARTS)) && !r->records[1]) return SQZ_GRAPH;
    if (count != many || (named && named != count) || (stepped && stepped != count) ||
        count > r->in->axes)
        return SQZ_GRAPH;
    for (u32 i = 0; i < count && !named; i++) axes[i] = i;
    if (axes_of(axes, count, r->in->axes) == ABSENT) return SQZ_GRAPH;
    plan_copy(r);
    for (u32 i = 0; i < r->in->axes; i++) shape[i] = r->in->shape[i];
    for (u32 i = 0; i < count; i++) {
        u32 axis = axis_of(axes[i], r->in->axes);
        i64 size = r->in->shape[axis], start = starts[i], end = ends[i], step = stepped ? steps[i] : 1;
        if (step < 1) return SQZ_UNSUPPORTED;
        if (start < 0) start += size;
        if (end < 0) end += size;
        start = start < 0 ? 0 : start > size ? size : start;
        end = end < start ? start : end > size ? size : end;
        if (step > size) step = size;
        keep(box, shape, axis, (u64)start, (u64)step, (u64)((end - start + step - 1) / step));
    }
    sqz_error error = finish_copy(r, r->in->axes, shape);
    sqz_simplify(box);
    return error;
}

static sqz_error plan_split(Reader *r) {
    Box *box = &r->node->on.box;
    i64 sizes[MOST_INTS], start = 0, all = 0;
    u64 shape[MOST_AXES];
    u32 axis = axis_of(sqz_integer(&r->attributes, AT_AXIS, 0), r->in->axes);
    u32 count = whole_numbers(r, AT_SPLIT, 1, sizes);
    if (axis == ABSENT) return SQZ_GRAPH;
    if (count == ABSENT || r->parts > MOST_INTS) return SQZ_UNSUPPORTED;
    i64 size = r->in->shape[axis], each = (size + r->parts - 1) / r->parts;
    if (!count) { /* in equal parts, but for the last */
        if (sqz_integer(&r->attributes, AT_NUM_OUTPUTS, r->parts) != r->parts) return SQZ_GRAPH;
        if (r->plan->opset < 18 && size % r->parts) return SQZ_GRAPH;
        for (u32 i = 0; i < r->parts; i++)
            sizes[i] = i + 1 < r->parts ? each : size - each * (r->parts - 1);
    } else if (count != r->parts) return SQZ_GRAPH;
    for (u32 i = 0; i < r->parts; i++) {
        if (sizes[i] < 1 || sizes[i] > size) return SQZ_GRAPH;
        if (i < r->part) start += sizes[i];
        all += sizes[i];
    }
    if (all != size) return SQZ_GRAPH;
    plan_copy(r);
    for (u32 i = 0; i < r->in->axes; i++) shape[i] = r->in->shape[i];
    keep(box, shape, axis, (u64)start, 1, (u64)sizes[r->part]);
    sqz_error error = finish_copy(r, r->in->axes, shape);
    sqz_simplify(box);
    return error;
}

static sqz_error plan_pad(Reader *r) {
    const Attributes *a = &r->attributes;
    Box *box = &r->node->on.box;
    i64 pads[MOST_INTS];
    u64 shape[MOST_AXES];
    u32 axes = r->in->axes, count = whole_numbers(r, AT_PADS, 1, pads);
    if (a->given & HAS(MODE) && !sqz_is_text(a, AT_MODE, "constant")) return SQZ_UNSUPPORTED;
    if (count == ABSENT || !real_number(r, AT_VALUE, 2, 0.0f, &r->node->alpha)) return SQZ_UNSUPPORTED;
    if (count != 2 * axes) return SQZ_GRAPH;
    plan_copy(r);
    r->node->fills = 1;
    for (u32 i = 0; i < axes; i++) {
        i64 size = r->in->shape[i], before = pads[i], after = pads[axes + i];
        i64 most = MOST_WEIGHTS;
        if (before < -size || after < -size || before > most || after > most) return SQZ_UNSUPPORTED;
        i64 cut = (before < 0 ? -before : 0), end = size + (after < 0 ? after : 0);
        if (end <= cut) return SQZ_UNSUPPORTED; /* all of it is cut off */
        keep(box, shape, i, (u64)cut, 1, (u64)(end - cut));
        shape[i] = (u64)(size + before + after);
    }
    sqz_error error = finish_copy(r, axes, shape);
    if (error) return error;
    for (u32 i = 0; i < axes; i++)
        if (pads[i] > 0) box->y_start += (u32)pads[i] * box->y[i];
    sqz_simplify(box);
    return SQZ_OK;
}

/* All values of a node with any number of them. */
static sqz_error more_values(Reader *r) {
    Field f;
    u32 count = 0;
    for (Span rest = r->message; sqz_next_field(&rest, &f) > 0;) {
        if (f.number != NODE_INPUT) continue;
        u32 value = sqz_find_value(r->plan, f.bytes);
        if (value == ABSENT) return SQZ_UNSUPPORTED; /* a stored one */
        r->plan->inputs[r->node->first_input + count++] = value;
    }
    r->node->inputs = count;
    return SQZ_OK;
}

static sqz_error plan_concat(Reader *r) {
    const Plan *plan = r->plan;
    const Attributes *a = &r->attributes;
    u32 axis = axis_of(sqz_integer(a, AT_AXIS, 0), r->in->axes);
    u64 size = 0;
    sqz_error error = more_values(r);
    if (error) return error;
    if (!(a->given & HAS(AXIS)) || axis == ABSENT) return SQZ_GRAPH;
    for (u32 i = 0; i < r->node->inputs; i++) {
        const Value *part = plan->values + plan->inputs[r->node->first_input + i];
        if (part->axes != r->in->axes) return SQZ_GRAPH;
        for (u32 j = 0; j < part->axes; j++)
            if (j != axis && part->shape[j] != r->in->shape[j]) return SQZ_GRAPH;
        size += part->shape[axis];
    }
    r->node->axis = axis;
    return sqz_set_axis(r->out, r->in, axis, size) ? SQZ_OK : SQZ_GRAPH;
}

/* ---- the same numbers in another shape ---- */

static sqz_error plan_reshape(Reader *r) {
    i64 sizes[MOST_INTS];
    u64 shape[MOST_AXES], known = 1;
    u32 open = ABSENT, count = whole_numbers(r, ATTRIBUTES, 1, sizes);
    int zeros = (int)sqz_integer(&r->attributes, AT_ALLOWZERO, 0);
    if (count == ABSENT || count > MOST_AXES) return SQZ_UNSUPPORTED;
    for (u32 i = 0; i < count; i++) {
        i64 size = sizes[i];
        if (size == 0 && (zeros || i >= r->in->axes)) return SQZ_GRAPH;
        if (size < -1 || size > 2 * (i64)MOST_WEIGHTS || (size == -1 && open != ABSENT)) return SQZ_GRAPH;
        if (size == -1) open = i;
        shape[i] = size == 0 ? r->in->shape[i] : size == -1 ? 1 : (u64)size;
        known *= shape[i];
        if (known > 2 * MOST_WEIGHTS) return SQZ_GRAPH;
    }
    if (open != ABSENT) shape[open] = r->in->count / known;
    return sqz_set_shape(r->out, count, shape) && r->out->count == r->in->count ? SQZ_OK : SQZ_GRAPH;
}

static sqz_error plan_flatten(Reader *r) {
    i64 axis = sqz_integer(&r->attributes, AT_AXIS, 1);
    u64 shape[2] = {1, 1};
    if (axis < 0) axis += r->in->axes;
    if (axis < 0 || axis > r->in->axes) return SQZ_GRAPH;
    for (u32 i = 0; i < r->in->axes; i++) shape[i >= axis] *= r->in->shape[i];
    return sqz_set_shape(r->out, 2, shape) ? SQZ_OK : SQZ_GRAPH;
}

static sqz_error plan_squeeze(Reader *r, int remove) {
    i64 list[MOST_INTS];
    u64 shape[MOST_AXES];
    u32 count = whole_numbers(r, AT_AXES, 1, list), axes = 0, from = 0;
    if (count == ABSENT) return SQZ_UNSUPPORTED;
    u32 total = r->in->axes + (remove ? 0 : count), bits = total > MOST_AXES ? ABSENT : axes_of(list, count, total);
    if (bits == ABSENT || (!remove && !count)) return SQZ_GRAPH;
    for (u32 i = 0; i < total; i++) {
        int named = (int)(bits >> i & 1);
        u32 size = named && !remove ? 1 : r->in->shape[from++];
        if (remove && (count ? named : size == 1)) {
            if (size != 1) return SQZ_GRAPH;
        } else shape[axes++] = size;
    }
    return sqz_set_shape(r->out, axes, shape) ? SQZ_OK : SQZ_GRAPH;
}

static sqz_error plan_same(Reader *r) {
    if (sqz_is(r->operator, "Reshape")) return plan_reshape(r);
    if (sqz_is(r->operator, "Flatten")) return plan_flatten(r);
    if (sqz_is(r->operator, "Squeeze")) return plan_squeeze(r, 1);
    if (sqz_is(r->operator, "Unsqueeze")) return plan_squeeze(r, 0);
    if (sqz_is(r->operator, "Cast") && sqz_integer(&r->attributes, AT_TO, 0) != FLOAT)
        return SQZ_UNSUPPORTED;
    if (sqz_is(r->operator, "Dropout")) { /* the ratio, and whether it trains */
        if (size_of(r->names[1]) && !(r->records[1] && r->records[1]->weights == 1)) return SQZ_UNSUPPORTED;
        if (size_of(r->names[2]) && !(r->records[2] && sqz_setting_is_false(r->records[2])))
            return SQZ_UNSUPPORTED;
    }
    return SQZ_OK;
}

/* ---- by name ---- */

#define WINDOW (HAS(AUTO_PAD) | HAS(DILATIONS) | HAS(KERNEL_SHAPE) | HAS(PADS) | HAS(STRIDES))
#define REDUCES (HAS(AXES) | HAS(KEEPDIMS) | HAS(NOOP_WITH_EMPTY_AXES))

static const struct {
    const char *name;
    u8 op, kind, least; /* inputs */
    u32 most;
    u64 attributes;
} operators[] = {
    {"Add", BINARY, ADD, 2, 2, 0},
    {"AveragePool", AVERAGE_POOL, 0, 1, 1, WINDOW | HAS(CEIL_MODE) | HAS(COUNT_INCLUDE_PAD)},
    {"BatchNormalization", BATCH_NORM, 0, 5, 5,
     HAS(EPSILON) | HAS(MOMENTUM) | HAS(SPATIAL) | HAS(TRAINING_MODE)},
    {"Cast", SAME, 0, 1, 1, HAS(TO) | HAS(SATURATE)},
    {"Clip", UNARY, CLIP, 1, 3, HAS(MAX) | HAS(MIN)},
    {"Concat", CONCAT, 0, 1, MOST_INPUTS, HAS(AXIS)},
    {"Conv", CONV, 0, 2, 3, WINDOW | HAS(GROUP)},
    {"Div", BINARY, DIVIDE, 2, 2, 0},
    {"Dropout", SAME, 0, 1, 3, HAS(RATIO) | HAS(SEED)},
    {"Elu", UNARY, ELU, 1, 1, HAS(ALPHA)},
    {"Erf", UNARY, ERF, 1, 1, 0},
    {"Exp", UNARY, EXPONENTIAL, 1, 1, 0},
    {"Flatten", SAME, 0, 1, 1, HAS(AXIS)},
    {"Gelu", UNARY, GELU, 1, 1, HAS(APPROXIMATE)},
    {"Gemm", DENSE_LAYER, 0, 2, 3, HAS(ALPHA) | HAS(BETA) | HAS(TRANSA) | HAS(TRANSB)},
    {"GlobalAveragePool", REDUCE, MEAN, 1, 1, 0},
    {"GlobalMaxPool", REDUCE, LARGEST, 1, 1, 0},
    {"HardSigmoid", UNARY, HARD_SIGMOID, 1, 1, HAS(ALPHA) | HAS(BETA)},
    {"HardSwish", UNARY, HARD_SWISH, 1, 1, 0},
    {"Identity", SAME, 0, 1, 1, 0},
    {"LRN", LRN, 0, 1, 1, HAS(ALPHA) | HAS(BETA) | HAS(BIAS) | HAS(SIZE)},
    {"LeakyRelu", UNARY, LEAKY_RELU, 1, 1, HAS(ALPHA)},
    {"LogSoftmax", SOFTMAX, 1, 1, 1, HAS(AXIS)},
    {"MatMul", DENSE_LAYER, 0, 2, 2, 0},
    {"MaxPool", MAX_POOL, 0, 1, 1, WINDOW | HAS(CEIL_MODE) | HAS(STORAGE_ORDER)},
    {"Mish", UNARY, MISH, 1, 1, 0},
    {"Mul", BINARY, MULTIPLY, 2, 2, 0},
    {"Neg", UNARY, NEGATE, 1, 1, 0},
    {"PRelu", BINARY, PRELU, 2, 2, 0},
    {"Pad", MOVE, 0, 1, 3, HAS(MODE) | HAS(PADS) | HAS(VALUE)},
    {"ReduceMax", REDUCE, LARGEST, 1, 2, REDUCES},
    {"ReduceMean", REDUCE, MEAN, 1, 2, REDUCES},
    {"ReduceSum", REDUCE, SUM, 1, 2, REDUCES},
    {"Relu", UNARY, RELU, 1, 1, 0},
    {"Reshape", SAME, 0, 2, 2, HAS(ALLOWZERO)},
    {"Sigmoid", UNARY, SIGMOID, 1, 1, 0},
    {"Slice", MOVE, 0, 1, 5, HAS(AXES) | HAS(ENDS) | HAS(STARTS)},
    {"Softmax", SOFTMAX, 0, 1, 1, HAS(AXIS)},
    {"Softplus", UNARY, SOFTPLUS, 1, 1, 0},
    {"Split", MOVE, 0, 1, 2, HAS(AXIS) | HAS(NUM_OUTPUTS) | HAS(SPLIT)},
    {"Sqrt", UNARY, SQUARE_ROOT, 1, 1, 0},
    {"Squeeze", SAME, 0, 1, 2, HAS(AXES)},
    {"Sub", BINARY, SUBTRACT, 2, 2, 0},
    {"Sum", BINARY, ADD, 1, MOST_INPUTS, 0},
    {"Tanh", UNARY, TANH, 1, 1, 0},
    {"Transpose", MOVE, 0, 1, 1, HAS(PERM)},
    {"Unsqueeze", SAME, 0, 1, 2, HAS(AXES)},
};

sqz_error sqz_find_operator(Reader *r) {
    u32 kind = 0, kinds = sizeof operators / sizeof *operators;
    while (kind < kinds && !sqz_is(r->operator, operators[kind].name)) kind++;
    if (kind == kinds || r->inputs < operators[kind].least || r->inputs > operators[kind].most)
        return SQZ_UNSUPPORTED;
    r->node->op = (Operator)operators[kind].op;
    r->node->kind = operators[kind].kind;
    return sqz_read_attributes(r->message, operators[kind].attributes, &r->attributes);
}

sqz_error sqz_plan_operator(Reader *r) {
    Operator op = r->node->op;
    r->node->adds = (u32)sqz_is(r->operator, "Add");
    r->node->moves = op == MAX_POOL || op == CONCAT || (op == SAME && !sqz_is(r->operator, "Cast")) ||
                     sqz_is(r->operator, "Transpose");
    /* Unless told otherwise, the output has the shape of the input. */
    if (r->node->op == BINARY) return plan_binary(r);
    if (r->values[0] == ABSENT) return SQZ_UNSUPPORTED; /* works on a stored tensor */
    sqz_set_axis(r->out, r->in, ABSENT, 0);
    switch (r->node->op) {
    case CONV: return plan_conv(r);
    case DENSE_LAYER: return plan_dense(r);
    case MAX_POOL:
    case AVERAGE_POOL: return plan_pool(r);
    case REDUCE: return plan_reduce(r, *r->operator.at == 'G');
    case UNARY: return plan_unary(r);
    case CONCAT: return plan_concat(r);
    case LRN: return plan_lrn(r);
    case BATCH_NORM: return plan_batch_norm(r);
    case SOFTMAX: return plan_softmax(r);
    case MOVE:
        if (sqz_is(r->operator, "Transpose")) return plan_transpose(r);
        if (sqz_is(r->operator, "Slice")) return plan_slice(r);
        return sqz_is(r->operator, "Split") ? plan_split(r) : plan_pad(r);
    default: return plan_same(r);
    }
}
