"""Federations on machines of one's own: sites in one process, in worker processes, or on a Ray cluster."""
