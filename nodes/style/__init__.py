"""Headshot styles as data, and the prompts they make."""
