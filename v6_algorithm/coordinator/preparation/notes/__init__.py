"""What the researcher is told before training of what sites' tables hold; nothing is changed here."""
