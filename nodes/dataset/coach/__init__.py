"""What a set of photos shows, which of them to take, and what to shoot next."""
