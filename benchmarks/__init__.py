"""What the scans and the networks cost, measured only after they have been checked."""
