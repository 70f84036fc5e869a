"""The small base model that comes with the pack, and how a host is given it."""
