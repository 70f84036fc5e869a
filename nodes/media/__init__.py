"""Pictures and texts as files hold them, to arrays and tensors and back."""
