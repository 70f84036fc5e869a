"""Finding, measuring, aligning and recognising faces: a library without nodes."""
