"""Many runs of one config: the grid, its processes, and the table of their results."""
