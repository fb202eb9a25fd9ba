"""What one site's table holds, before anything is trained: counts, means, quantiles, labels, correlations.

`coordinator.description.describe` asks the sites; here is what a site answers (`table`), and the formulas and
the rules by which small cells are kept at home (`cells`); quantiles are `data.quantiles`'.
"""
