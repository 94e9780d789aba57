"""A challenge and a model that axonnx knows nothing of."""
