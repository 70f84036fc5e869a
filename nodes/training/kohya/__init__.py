"""A training set and a recipe in the words of sd-scripts, and the node that writes them."""
