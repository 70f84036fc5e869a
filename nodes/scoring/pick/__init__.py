"""The best of a batch by rule."""
