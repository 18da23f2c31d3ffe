"""Training, given the objects; nothing here reads a config."""
