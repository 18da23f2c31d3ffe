"""Measuring checkpoints and masks: evaluator, protocol, scoring, result files."""
