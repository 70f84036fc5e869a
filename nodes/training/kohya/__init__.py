"""Data sets and settings for kohya's sd-scripts, to train the same recipe outside ComfyUI."""
