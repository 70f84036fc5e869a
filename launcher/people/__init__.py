"""Many people in one go: a folder for each, one workflow for all."""
