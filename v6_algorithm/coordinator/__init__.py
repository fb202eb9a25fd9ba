"""In the container of `master`: preparation, the loop of rounds, strategies, tuning, and the result."""
