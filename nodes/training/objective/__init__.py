"""What a step aims at: losses, noise levels and the recogniser's view of the estimate."""
