"""At the researcher's desk: the command line, the report, a vantage6 server's client, and use of a finished model."""
