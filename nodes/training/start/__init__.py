"""What a new word starts from: what an encoder knows of the person already."""
