"""What a site keeps between the requests of a run, and of a model afterwards: in its folder, or in its process."""
