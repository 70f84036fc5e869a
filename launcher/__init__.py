"""Sets up, starts and drives a ComfyUI host for the pack; `run.py` is its command line."""
