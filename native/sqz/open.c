/* The container: header, head and tensor records, and how an open network lies in memory. */
#include "internal.h"

enum { HEADER_BYTES = 24, VERSION = 1, DEFLATE = 1, ALIGNMENT = 16 };

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

/* ---- the caller's memory, handed out from front to back ---- */

typedef struct {
    u8 *base;
    u64 size, used;
} Memory;

/* NULL where the memory is too small; what is used counts on, so that it tells what is needed. */
static void *allot(Memory *memory, u64 bytes) {
    u64 at = memory->used;
    memory->used += (bytes + ALIGNMENT - 1) & ~(u64)(ALIGNMENT - 1);
    return memory->used <= memory->size ? memory->base + at : NULL;
}

/* ---- the head ---- */

int sqz_varint(Span *span, u64 most, u64 *value) {
    *value = 0;
    for (u32 shift = 0; shift < 70 && span->at < span->end; shift += 7) {
        u8 byte = *span->at++;
        if (shift == 63 && byte > 1) return 0;
        *value |= (u64)(byte & 127) << shift;
        if (byte < 128) return *value <= most;
    }
    return 0;
}

static int sized(Span *span, Span *out) {
    u64 bytes;
    if (!sqz_varint(span, size_of(*span), &bytes) || bytes > size_of(*span)) return 0;
    out->at = span->at;
    out->end = span->at += bytes;
    return 1;
}

static sqz_error check_header(Span file, u32 *stored, u32 *raw) {
    static const u8 magic[] = {0x89, 'S', 'Q', 'Z'};
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
    if (at[4] < VERSION || at[6] != DEFLATE || at[7]) return SQZ_HEAD;
    return *raw && *raw <= MOST_HEAD_BYTES ? SQZ_OK : SQZ_LENGTH;
}

/* Reads one record; its payload is the next of the file. */
static sqz_error read_record(Span *head, Span *file, Record *r) {
    u64 number, weights = 1;
    if (!sized(head, &r->name) || head->at == head->end) return SQZ_HEAD;
    r->coder = *head->at++;
    if (!sqz_varint(head, MOST_AXES, &number)) return SQZ_LENGTH;
    r->axes = (u32)number;
    for (u32 i = 0; i < r->axes; i++) {
        if (!sqz_varint(head, MOST_WEIGHTS, &number)) return SQZ_LENGTH;
        r->shape[i] = (u32)number;
        weights *= number;
        if (weights > MOST_WEIGHTS) return SQZ_LENGTH;
    }
    r->weights = (u32)weights;
    if (!sized(head, &r->parameters)) return SQZ_HEAD;
    if (!sqz_varint(head, size_of(*file), &number) || size_of(*head) < 4) return SQZ_LENGTH;
    r->payload.at = file->at;
    r->payload.end = file->at += number;
    r->checksum = little32(head->at);
    head->at += 4;
    return SQZ_OK;
}

static int same_text(Span a, Span b) {
    if (size_of(a) != size_of(b)) return 0;
    while (a.at < a.end)
        if (*a.at++ != *b.at++) return 0;
    return 1;
}

static sqz_error read_records(sqz_network *net, Span head, Span payloads) {
    Plan *plan = net->plan;
    u64 weights = 0;
    for (u32 i = 0; i < plan->record_count; i++) {
        Record *r = plan->records + i;
        sqz_error error = read_record(&head, &payloads, r);
        if (error) return error;
        net->detail.at = (const char *)r->name.at;
        net->detail.bytes = size_of(r->name);
        if ((weights += r->weights) > MOST_WEIGHTS) return SQZ_LENGTH;
        for (u32 j = 0; j < i; j++)
            if (same_text(plan->records[j].name, r->name)) return SQZ_HEAD;
        if (!same_crc(crc32(0, r->payload.at, r->payload.end), r->checksum)) return SQZ_CHECKSUM;
    }
    net->detail.bytes = 0;
    return head.at == head.end && payloads.at == payloads.end ? SQZ_OK : SQZ_TRAILING;
}

/* ---- weights ---- */

static sqz_error tensor_error(sqz_network *net, const Record *r, sqz_error error) {
    net->detail.at = (const char *)r->name.at;
    net->detail.bytes = size_of(r->name);
    return error;
}

/* What decoding a node's tensors needs on the way, in bytes: the most of all. */
static sqz_error add_scratch(sqz_network *net, const Node *node, u64 *most) {
    const Record *both[] = {node->weight, node->addend};
    for (u32 i = 0; i < 2; i++) {
        u64 bytes;
        if (!both[i]) continue;
        if (sqz_tensor_scratch(both[i], &bytes)) return tensor_error(net, both[i], SQZ_CODER);
        bytes += ALIGNMENT;
        if (!i && node->op == CONV) bytes += 4 * (u64)both[i]->weights; /* before they are packed */
        if (bytes > *most) *most = bytes;
    }
    return SQZ_OK;
}

static sqz_error decode_node(sqz_network *net, Node *node, float *scratch) {
    sqz_error error = SQZ_OK;
    if (node->weight) {
        float *to = node->op == CONV ? scratch : node->weights;
        float *rest = node->op == CONV ? scratch + ((node->weight->weights + 3) & ~3u) : scratch;
        error = sqz_tensor_decode(node->weight, to, rest);
        if (error) return tensor_error(net, node->weight, error);
        if (node->op == CONV) sqz_pack_weights(node, scratch, node->weights);
    }
    if (node->addend) {
        error = sqz_tensor_decode(node->addend, node->biases, scratch);
        if (error) return tensor_error(net, node->addend, error);
    }
    return error;
}

static sqz_error read_weights(sqz_network *net, Memory *memory) {
    Plan *plan = net->plan;
    u64 most = 0;
    for (u32 i = 0; i < plan->node_count; i++) {
        Node *node = plan->nodes + i;
        sqz_error error = add_scratch(net, node, &most);
        if (error) return error;
        if (node->weight)
            node->weights = allot(memory, node->op == CONV ? 4 * sqz_packed_weights(node)
                                                           : 4 * (u64)node->weight->weights);
        if (node->addend) node->biases = allot(memory, 4 * (u64)node->addend->weights);
    }
    /* The scratch of decoding and the activations of running are never there at once. */
    u64 running = 4 * (plan->scratch_floats + plan->activation_floats);
    plan->scratch = allot(memory, most > running ? most : running);
    if (!plan->scratch) return SQZ_MEMORY;
    plan->activations = plan->scratch + plan->scratch_floats;
    for (u32 i = 0; i < plan->node_count; i++) {
        sqz_error error = decode_node(net, plan->nodes + i, plan->scratch);
        if (error) return error;
    }
    return SQZ_OK;
}

/* ---- opening ---- */

static sqz_error open_in(sqz_network *net, Span file, Memory *memory) {
    u32 stored, raw, nodes, inputs;
    u64 bytes, tensors;
    sqz_error error = check_header(file, &stored, &raw);
    if (error) return error;
    u8 *inflated = allot(memory, raw);
    if (!inflated) return SQZ_MEMORY;
    Span in = {file.at + HEADER_BYTES, file.at + HEADER_BYTES + stored};
    if ((error = sqz_inflate(in, inflated, raw))) return error;

    Span head = {inflated, inflated + raw}, metadata, model;
    if (!sized(&head, &metadata) || !sized(&head, &model)) return SQZ_LENGTH;
    net->metadata.at = (const char *)metadata.at;
    net->metadata.bytes = size_of(metadata);
    if ((error = sqz_read_metadata(net))) return error;
    if (!sqz_varint(&head, MOST_TENSORS, &tensors)) return SQZ_LENGTH;
    if ((error = sqz_graph_count(net, model, &nodes, &inputs))) return error;

    bytes = sizeof(Plan) + tensors * sizeof(Record) + nodes * sizeof(Node) +
            (nodes + 1) * sizeof(Value) + inputs * sizeof(u32);
    u8 *at = allot(memory, bytes);
    if (!at) return SQZ_MEMORY;
    for (u64 i = 0; i < bytes; i++) at[i] = 0;
    Plan *plan = net->plan = (Plan *)(void *)at;
    plan->records = (Record *)(plan + 1); /* the kinds with pointers first: all are aligned */
    plan->nodes = (Node *)(plan->records + tensors);
    plan->values = (Value *)(plan->nodes + nodes);
    plan->inputs = (u32 *)(plan->values + nodes + 1);
    plan->record_count = (u32)tensors;
    Span payloads = {in.end, file.end};
    if ((error = read_records(net, head, payloads))) return error;
    if ((error = sqz_graph_plan(net, model))) return error;
    return read_weights(net, memory);
}

sqz_error sqz_open(sqz_network *net, const void *file, size_t file_bytes, void *memory,
                   size_t *memory_bytes) {
    static const sqz_network nothing;
    *net = nothing;
    if (file_bytes > 0xffffffffu) return SQZ_TRAILING;
    Span span = {file, (const u8 *)file + file_bytes};
    Memory own = {memory, memory ? *memory_bytes : 0, 0};
    sqz_error error = open_in(net, span, &own);
    if (error == SQZ_MEMORY) {
        if (own.used > (size_t)-1) return SQZ_LENGTH;
        *memory_bytes = (size_t)own.used;
    }
    return error;
}

const char *sqz_error_text(sqz_error error) {
    static const char *const texts[] = {
        "all is well",
        "more memory is needed",
        "this is not a .sqz file",
        "the file has a later version of the format",
        "the file is cut short",
        "bytes follow the end of the file or of its head",
        "the file is damaged: a checksum differs",
        "a length in the file is impossible or too large",
        "the head of the file cannot be read",
        "the graph in the file is not a usable ONNX model",
        "a tensor cannot be decoded",
        "the graph uses an operator, or a setting of one, that is not supported",
        "the image has no pixels, or too many",
    };
    return (u32)error < sizeof texts / sizeof *texts ? texts[error] : "an unknown error";
}
