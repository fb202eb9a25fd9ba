"""The algorithm's image through the Docker SDK: built from a checkout, tried as a node would run it, pushed.

`v6-algorithm image build | test | push` call this. The SDK (the package docker) comes with vantage6's tools and is
imported in functions. Credentials for registries are Docker's own: nothing here takes or shows them.
"""
