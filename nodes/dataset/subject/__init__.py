"""From curated photos to the Subject."""
