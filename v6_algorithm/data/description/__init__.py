"""What a site tells of its table before anything is learned: columns by kind, hints, leaks, repeated rows."""
