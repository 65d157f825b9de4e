"""One run, from a checked specification to its record."""
