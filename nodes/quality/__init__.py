"""What a photo of a face is worth: measures from its pixels, and the rules that judge them."""
