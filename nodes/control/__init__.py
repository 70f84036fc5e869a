"""Control maps drawn to their training specification, and stacks of ControlNets."""
