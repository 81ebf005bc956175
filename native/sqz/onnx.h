/* The numbers of ONNX's fields that matter here (onnx.proto3). */
#ifndef SQZ_ONNX_H
#define SQZ_ONNX_H

enum { MODEL_GRAPH = 7 };
enum { GRAPH_NODE = 1, GRAPH_INITIALIZER = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12 };
enum { NODE_INPUT = 1, NODE_OUTPUT = 2, NODE_OPERATOR = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };
enum { ATTRIBUTE_NAME = 1, ATTRIBUTE_FLOAT = 2, ATTRIBUTE_INT = 3, ATTRIBUTE_TEXT = 4,
       ATTRIBUTE_INTS = 8 };
enum { TENSOR_DIMS = 1, TENSOR_TYPE = 2, TENSOR_INTS = 7, TENSOR_NAME = 8, TENSOR_RAW = 9,
       INT64 = 7 };

#endif
