"""Finds, sets up and starts a ComfyUI for the pack."""
