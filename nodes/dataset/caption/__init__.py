"""What a photo's caption says, and the check of it."""
