"""The Python API's parts: how sites are given (`sites`), a network of one's own (`own`), what a run gives (`result`).

`v6_algorithm.api` is what people import.
"""
