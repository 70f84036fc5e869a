"""Talks to a ComfyUI server: the queue, its files, and errors in words."""
