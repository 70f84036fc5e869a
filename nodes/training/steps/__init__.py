"""The steps of a run: the loop, all that learns in it, its memory and its state."""
