"""The local loop, and networks as named tensors."""
