"""Draws what hides a face on portraits, and fits the weights of nodes/quality/covers to them."""
