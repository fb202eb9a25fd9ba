"""Cutting one table into sites, for simulation."""
