"""Techniques beside each other: the same pictures of each, measured, in one table."""
