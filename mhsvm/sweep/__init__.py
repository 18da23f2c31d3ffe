"""Many runs of one config: grid, processes and table of results."""
