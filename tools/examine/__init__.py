"""Wrong and unusual tables, each with the outcome written before it was tried: ``python -m tools.examine``.

No everyday test: whoever changes how tables are read runs it and compares the counts with docs/benchmarks.md.
"""
