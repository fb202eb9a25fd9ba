"""How messages travel between coordinator and sites: vantage6, its mock client, or this process."""
