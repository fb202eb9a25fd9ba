"""The charts of a report as hand-written SVG, and which series of a result go into which."""
