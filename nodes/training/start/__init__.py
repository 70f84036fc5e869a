"""What a new word starts from, and the node that finds it."""
