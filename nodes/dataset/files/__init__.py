"""Photo files and what lies beside them, as records."""
