/* The file: its header, its inflated head, its records. */
#ifndef SQZ_CONTAINER_H
#define SQZ_CONTAINER_H

#include "record.h"

enum { HEADER_BYTES = 24 };

/* Checks all that can be checked without memory; how long the stored head and the inflated are, and
 * whether it is coded as text, or deflated. */
sqz_error sqz_read_header(Span file, u32 *stored, u32 *raw, u32 *is_text);

/* Bytes behind their length; 0 where they are not there. */
int sqz_sized(Span *span, Span *out);

/* Reads `count` records, which must use up the head, and their payloads the rest of the file.
 * `total` gets the weights of all. */
sqz_error sqz_read_records(sqz_network *net, Span head, Span payloads, Record *records, u32 count,
                           u64 *total);

/* Whether every payload is what was written. */
sqz_error sqz_check_payloads(sqz_network *net, const Record *records, u32 count);

#endif
