/* From the ONNX graph to a plan. */
#ifndef SQZ_GRAPH_H
#define SQZ_GRAPH_H

#include "plan.h"

/* Counts nodes and inputs of the graph, so that memory can be laid out for them. */
sqz_error sqz_graph_count(Span model, u32 *nodes, u32 *inputs);

/* Fills the plan but for where values lie, and checks every shape. */
sqz_error sqz_graph_plan(sqz_network *net, Span model);

#endif
