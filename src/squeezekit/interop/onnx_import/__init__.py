"""Imports foreign ONNX models: small passes, and a comparison with the original."""
