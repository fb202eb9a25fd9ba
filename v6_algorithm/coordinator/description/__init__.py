"""What hospitals hold, asked without training: describe, Table 1, survival curves, and the check before a run."""
