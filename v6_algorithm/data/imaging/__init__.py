"""Images and volumes of one table: read from files or columns, brought to one size, kept mapped to disk, measured."""
