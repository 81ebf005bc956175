"""Foreign ONNX models on their way in: small passes, and a comparison with the original."""
