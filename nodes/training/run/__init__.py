"""One training job from its inputs to its files, and the node that runs it."""
