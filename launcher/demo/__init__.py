"""`run.py demo`: the whole path on ten sample photos, from a bare machine to scored headshots."""
