"""Training on the host's own model, beside frozen weights."""
