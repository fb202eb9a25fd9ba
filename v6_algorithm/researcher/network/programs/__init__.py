"""Programs that the Python of vantage6's server and nodes runs, by their paths; nothing imports them."""
