/* Tensors from their payloads. */
#ifndef SQZ_TENSORS_H
#define SQZ_TENSORS_H

#include "record.h"

/* Whether there is a coder of this number. */
int sqz_has_coder(u32 number);

/* Bytes of a coder's state, and scratch bytes that decoding a tensor needs beside its values. */
void sqz_tensor_scratch(const Record *record, u64 *state, u64 *scratch);

/* Makes a state ready for any number of tensors. */
void sqz_tensor_start(void *state, u64 bytes);
sqz_error sqz_tensor_decode(const Record *record, float *values, void *state, void *scratch);

#endif
