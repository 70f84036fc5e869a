"""What layers learn: one file a technique, beside frozen layers of the host."""
