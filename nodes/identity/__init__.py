"""Face embeddings injected into a model while it samples."""
