"""A whole run on one page."""
