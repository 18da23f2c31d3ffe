"""From archives to tensors: sources, the prepared set, splits, loaders, augmentation."""
