"""The Result: the plain JSON of a run, its averages over folds and sites, diagnostics and privacy account."""
