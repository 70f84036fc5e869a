"""Text encoders that learn: new words, and adapters beside their layers."""
