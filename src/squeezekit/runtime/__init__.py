"""From a file to predictions: images, labels and the ONNX Runtime session; no torch, no onnx."""
