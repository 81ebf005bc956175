/* Values and tensors by name. */
#include "names.h"
#include "text.h"

u32 sqz_find_value(const Plan *plan, Span name) {
    u32 hash = sqz_hash(name);
    for (u32 i = 0; i < plan->value_count; i++)
        if (plan->values[i].hash == hash && sqz_same_text(plan->values[i].name, name)) return i;
    return ABSENT;
}

const Record *sqz_find_record(Plan *plan, Span name) {
    u32 hash = sqz_hash(name);
    for (u32 i = 0; i < plan->record_count; i++) {
        Record *record = plan->records + i;
        if (record->hash != hash || !sqz_same_text(record->name, name)) continue;
        record->used++;
        return record;
    }
    return NULL;
}
