"""From a subject to a training set: crops, masks, captions and their cache."""
