"""Other people's faces, by which strangers are told."""
