"""Random models of real architectures in a few megabytes, for the demo and the tests."""
