"""The networks, built directly as ONNX graphs, and what they cost."""
