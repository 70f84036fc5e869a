"""Likeness scores against the spread of a person's own photos."""
