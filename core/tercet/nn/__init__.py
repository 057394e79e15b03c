"""Tensors in, tensors out: packed batches, kernels, layers and heads. Knows no file, thread or socket."""
