"""Training and measuring of what makes images: the adversaries, what the discriminator sees, and grids of samples."""
