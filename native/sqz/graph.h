/* From the ONNX graph to a plan. */
#ifndef SQZ_GRAPH_H
#define SQZ_GRAPH_H

#include "model.h"
#include "plan.h"

/* Fills the plan but for where values lie, and checks every name and shape; `names` of classes, or 0,
 * must be as many as there are. */
sqz_error sqz_graph_plan(sqz_network *net, const Counts *counts, u32 names);

#endif
