"""What text encoders learn: new words, adapters, and conditionings that carry gradients."""
