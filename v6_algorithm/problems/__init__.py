"""What plug-ins import, under the name they were written for: `v6_algorithm.problems.base`."""
