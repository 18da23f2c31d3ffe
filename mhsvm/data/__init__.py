"""Data for training: splits, data sets, loaders and augmentation."""
