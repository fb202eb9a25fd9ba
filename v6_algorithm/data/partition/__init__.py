"""Cutting the rows of one table into sites, for simulation.

`tables` looks at a table and calls the function of the kind asked for; `sizes`, `labels` and `plans` hold those
functions, on numpy arrays and a generator; `dealing` is what they share. Every function returns one array of ascending
row numbers a site: no row is at two sites, no site is empty, and none is left out unless the kind says so.
"""
