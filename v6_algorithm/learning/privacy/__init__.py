"""Differential privacy of a site's training: what its steps cost, and the noise that a wanted cost needs."""
