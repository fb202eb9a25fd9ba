"""Secure aggregation: whoever adds up the sites' numbers learns their sum and nothing else.

The protocol is that of Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning, CCS 2017,
with keys that last a run and masks that are derived anew for every call. `site.secure_aggregation` masks and opens,
`coordinator.secure_aggregation` adds up; both take everything that they have in common from here. The threat model is
in docs/secure-aggregation.md.
"""
