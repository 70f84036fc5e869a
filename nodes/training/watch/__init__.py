"""How a run is watched: sample pictures, likeness, divergence, and when it is over."""
