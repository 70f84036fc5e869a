"""Every photo judged on its own and beside the others."""
