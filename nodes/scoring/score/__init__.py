"""Pictures against a subject: likeness and all that stands beside it."""
