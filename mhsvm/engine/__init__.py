"""Training, evaluation and prediction, given the objects; nothing here reads a config."""
