"""Face restoration behind an identity guard."""
