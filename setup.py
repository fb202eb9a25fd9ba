"""Here for those who look for it; what is installed stands in pyproject.toml."""

from setuptools import setup

setup()
