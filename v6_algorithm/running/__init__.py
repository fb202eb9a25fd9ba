"""What `master` is made of: the calls and their book, a fold's way through the rounds, start, end and result."""
