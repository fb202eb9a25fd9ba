"""What coordinator and sites must agree on: problems, networks, the local loop, and metrics that add up."""
