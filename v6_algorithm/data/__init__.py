"""One site's rows: read from their source, encoded, split, and kept between rounds."""
