"""Random models of real architectures in a few megabytes, for the tests."""
