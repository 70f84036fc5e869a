"""Scripts that make what the repository ships, from sources that they name."""
