"""Wrong and unusual inputs, each with the outcome that was written down before it was tried.

Tables: ``python -m tools.examine``; images, and numbers in a paper: ``python -m tools.examine.outside``. No everyday
tests: whoever changes how files are read runs them and compares the counts with docs/benchmarks.md.
"""
