"""Wrong and unusual inputs, each with the outcome that was written down before it was tried: `python -m tools.examine`.

No everyday test: whoever changes how tables are read runs it and compares the counts with docs/benchmarks.md.
"""
