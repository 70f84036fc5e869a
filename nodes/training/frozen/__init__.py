"""What a training step runs on: the base model, frozen, in the formats and operations it needs."""
