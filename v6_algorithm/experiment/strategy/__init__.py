"""Sections about how replies become the next model: the kinds, and the stages that they share."""
