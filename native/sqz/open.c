/* Opening a file: how an open network lies in memory. */
#include "container.h"
#include "entropy.h"
#include "graph.h"
#include "inflate.h"
#include "int8.h"
#include "layers8.h"
#include "limits.h"
#include "memory.h"
#include "metadata.h"
#include "model.h"
#include "place.h"
#include "proto.h"
#include "text.h"
#include "weights.h"

static sqz_error open_in(sqz_network *net, sqz_precision precision, Span file, Memory *memory) {
    u32 stored, raw, is_text, names;
    Counts counts;
    u64 bytes, tensors, weights;
    sqz_error error = sqz_read_header(file, &stored, &raw, &is_text);
    if (error) return error;
    u8 *inflated = allot(memory, raw);
    Memory rest = *memory; /* what the coder works in is free again then */
    void *state = is_text ? allot(&rest, sqz_entropy_bytes()) : inflated;
    if (!inflated || !state) {
        *memory = rest;
        return SQZ_MEMORY;
    }
    Span in = {file.at + HEADER_BYTES, file.at + HEADER_BYTES + stored};
    if (is_text) {
        sqz_entropy_start(state);
        if (sqz_entropy_text(state, in, inflated, raw) < 0) return SQZ_LENGTH;
    } else if ((error = sqz_inflate(in, inflated, raw))) return error;

    Span head = {inflated, inflated + raw}, metadata, model;
    if (!sqz_sized(&head, &metadata)) return SQZ_LENGTH;
    if ((error = within(size_of(metadata), MOST_TEXT_BYTES, 0, 0))) return error;
    if (STRICT && !sqz_is_utf8(metadata)) return SQZ_HEAD;
    net->metadata.at = (const char *)metadata.at;
    net->metadata.bytes = size_of(metadata);
    if ((error = sqz_read_metadata(net, &names))) return error;
    if (!sqz_sized(&head, &model) || !sqz_varint(&head, FORMATS_TENSORS, &tensors)) return SQZ_LENGTH;
    if (tensors > MOST_TENSORS) return SQZ_LIMIT;
    /* What is wrong with the records is said first, as by every reader. */
    static const Counts none;
    sqz_error graph_error = sqz_check_model(net, model, &counts);
    sqz_text detail = net->detail;
    net->detail.bytes = 0;
    if (graph_error) counts = none;

    u64 records = tensors + counts.initializers;
    bytes = sizeof(Plan) + records * sizeof(Record) + counts.nodes * sizeof(Node) +
            (counts.nodes + 1) * sizeof(Value) + counts.inputs * sizeof(u32);
    u8 *at = allot(memory, bytes);
    if (!at) return SQZ_MEMORY;
    for (u64 i = 0; i < bytes; i++) at[i] = 0;
    Plan *plan = net->plan = (Plan *)(void *)at;
    plan->records = (Record *)(plan + 1); /* the kinds with pointers first: all are aligned */
    plan->nodes = (Node *)(plan->records + records);
    plan->values = (Value *)(plan->nodes + counts.nodes);
    plan->inputs = (u32 *)(plan->values + counts.nodes + 1);
    plan->file_bytes = size_of(file);
    plan->record_count = plan->tensor_count = (u32)tensors;
    Span payloads = {in.end, file.end};
    error = sqz_read_records(net, head, payloads, plan->records, plan->record_count, &weights);
    if (error) return error;
    if ((error = weights_within(weights, size_of(file)))) return error;
    net->detail = detail;
    if (graph_error) return graph_error;
    if ((error = sqz_graph_plan(net, &counts, names))) return error;
    if ((error = work_within(plan->work, size_of(file)))) return error;
    error = memory_within(4 * (plan->most_alive + weights), size_of(file));
    if (error) return error;
    if ((error = sqz_check_payloads(net, plan->records, plan->tensor_count))) return error;
    int has_ranges = sqz_has_activations(net);
    int can_int8 = INT8_LAYERS && has_ranges;
    if (precision == SQZ_DEFAULT) precision = can_int8 ? SQZ_INT8 : SQZ_FLOAT;
    if (precision == SQZ_INT8 ? !can_int8 : !FLOAT_LAYERS) return SQZ_ARGUMENT;
    net->precision = precision;
#if INT8_LAYERS
    if (precision == SQZ_INT8 && (error = sqz_plan_int8(net, memory))) return error;
    plan->simd = sqz_find_simd();
#endif
    sqz_place_values(plan);
    return sqz_read_weights(net, memory);
}

sqz_error sqz_open(sqz_network *net, const void *file, size_t file_bytes, void *memory,
                   size_t *memory_bytes) {
    return sqz_open_as(net, SQZ_DEFAULT, file, file_bytes, memory, memory_bytes);
}

sqz_error sqz_open_as(sqz_network *net, sqz_precision precision, const void *file, size_t file_bytes,
                      void *memory, size_t *memory_bytes) {
    static const sqz_network nothing;
    *net = nothing;
    if (file_bytes > 0xffffffffu) return SQZ_TRAILING;
    Span span = {file, (const u8 *)file + file_bytes};
    Memory own = {memory, memory ? *memory_bytes : 0, 0};
    sqz_error error = open_in(net, precision, span, &own);
    if (error == SQZ_MEMORY) {
        if (own.used > (size_t)-1) return SQZ_LENGTH;
        *memory_bytes = (size_t)own.used;
    }
    return error;
}
