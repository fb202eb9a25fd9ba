"""From sums to what papers print: coefficients with errors and tests, meta-analysis, distributions."""
