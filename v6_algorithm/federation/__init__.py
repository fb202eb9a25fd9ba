"""How `master` reaches the sites: one protocol, an engine for vantage6 (real and mock) and one in this process."""
