"""Sections about images and volumes: where they are, how training changes them, and the networks for them."""
