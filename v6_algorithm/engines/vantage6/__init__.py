"""The engines on vantage6 4.x and 5.x, and what a node's container and a job's volume hold for them."""
