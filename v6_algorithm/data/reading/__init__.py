"""From a source to a dataframe: files of every kind, their lines and cells, and what was taken for granted.

`v6_algorithm.data.sources` reads through here.
"""
