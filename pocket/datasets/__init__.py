"""Generators of the pocket tasks (pure standard library)."""
