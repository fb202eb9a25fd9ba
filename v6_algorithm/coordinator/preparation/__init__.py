"""The calls before the first round: sites agree on columns, and their sums become fill values and scales."""
