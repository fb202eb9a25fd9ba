"""The node owner's rules."""
