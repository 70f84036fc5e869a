"""A training set in memory: photos with their conditionings, and the order they train in."""
