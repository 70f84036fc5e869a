"""Pictures made inside training, and the class photos that keep everybody else as they were."""
