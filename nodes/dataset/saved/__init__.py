"""Photo sets on disk, written and read again."""
