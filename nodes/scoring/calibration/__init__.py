"""How a similarity becomes a verdict with error rates."""
