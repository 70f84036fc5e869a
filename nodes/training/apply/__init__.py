"""Trained files of this pack and of other trainers, put on a MODEL and a CLIP, each part told."""
