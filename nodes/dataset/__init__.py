"""From a folder of photos to a curated subject and a training set on disk."""
