"""One process a site that lasts as long as a run, and the short containers of the rounds that bring it requests."""
