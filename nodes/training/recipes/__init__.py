"""Recipes: everything that decides a training run except the data, the model and the seed."""
