"""What a federation's tables hold, before anything is trained: counts, means, quantiles, labels, correlations.

`describe` in `federated` asks the sites; `cells` and `quantiles` are the formulas, and the rules by which small cells
are kept at home, that both sides share.
"""
