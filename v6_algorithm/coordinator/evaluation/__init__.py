"""What is asked when training is over, and of models that are finished: final evaluation, subgroups, tests, samples."""
