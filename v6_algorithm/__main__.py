"""``python -m v6_algorithm`` is the command line."""

from v6_algorithm.researcher.cli import main

main()
