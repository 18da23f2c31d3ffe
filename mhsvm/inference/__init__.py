"""Predicting masks: predictor, test-time augmentation, postprocessing, prediction folders."""
