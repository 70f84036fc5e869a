"""What layers of a model learn: adapters beside frozen weights, or new weights."""
