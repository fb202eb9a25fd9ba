"""The local loop, and networks as named tensors; `generative` is what problems that make images have beside it."""
