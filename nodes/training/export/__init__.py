"""What comes out: files that are proven by loading them back."""
