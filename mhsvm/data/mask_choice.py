"""Which mask of an image trains, where a set has those of several raters."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mhsvm.data.consensus import as_labels, as_stored, consensus_mask, consensus_names, staple_missing
from mhsvm.nearest import did_you_mean
from mhsvm.store import PreparedSet, Ratings

# Besides these, the name of a rater.
CHOICES = ("primary", "first", "majority", "staple", "random")


def check_mask_choice(prepared: PreparedSet, choice: str, ids: Sequence[str]) -> None:
    """Check that a set has such masks of some images.

    Args:
        prepared: The set.
        choice: One of `CHOICES`, or the name of a rater.
        ids: The images.
    Raises:
        ValueError: It has not.
    """
    if choice == "primary":
        return
    ratings = prepared.ratings
    if ratings is None:
        raise ValueError(
            f"data.mask is {choice!r} and {prepared.path} has one mask an image: take 'primary', or prepare the set "
            "with `raters`"
        )
    names = (*CHOICES, *ratings.raters)
    if choice not in names:
        raise ValueError(f"data.mask is one of {', '.join(names)}, not {choice!r}{did_you_mean(choice, names)}")
    if choice == "staple":
        if choice not in consensus_names(prepared.num_classes):
            raise ValueError(
                f"data.mask 'staple' is for lesion masks, and {prepared.path} has classes: take 'majority'"
            )
        missing = staple_missing()
        if missing is not None:
            raise ValueError(f"{missing}. Or take another data.mask, such as 'majority'")
    if choice in ratings.raters:
        row_of = {name: row for row, name in enumerate(prepared.ids)}
        rated = set(ratings.rows[ratings.numbers == ratings.raters.index(choice)].tolist())
        without = [name for name in ids if row_of[name] not in rated]
        if without:
            raise ValueError(
                f"data.mask is {choice!r}, and {len(without)} of the {len(ids)} images of training and validation have "
                f"no mask by this rater, such as {without[0]}: name a split of those that have, file:PATH, or take "
                "'majority'"
            )


def read_masks(prepared: PreparedSet, rows: Sequence[int], choice: str = "primary") -> Tensor:
    """Read one mask of each image, uint8 (n, h, w), in stored form; "random" is no single mask.

    An image without a rated mask has its primary one.

    Raises:
        ValueError: A mask is damaged.
    """
    ratings = prepared.ratings
    if choice == "primary" or ratings is None:
        return torch.from_numpy(prepared.masks(rows))
    return torch.from_numpy(np.stack([_choose(prepared, ratings, row, choice) for row in rows]))


def read_all_masks(prepared: PreparedSet, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Read all rated masks of each image; an image without one has its primary mask.

    Returns:
        Masks, uint8 (m, h, w), and the place of the first one of each image with the end, int64 (n + 1,).
    """
    ratings = prepared.ratings
    assert ratings is not None, "the choice was checked"
    masks = [ratings.masks(ratings.places(row)) if ratings.num_of(row) else prepared.masks([row]) for row in rows]
    starts = torch.tensor([0, *map(len, masks)]).cumsum(dim=0)
    return torch.from_numpy(np.concatenate(masks)), starts


def _choose(prepared: PreparedSet, ratings: Ratings, row: int, choice: str) -> np.ndarray:
    if not ratings.num_of(row):
        return prepared.masks([row])[0]
    if choice == "first":
        return ratings.masks(ratings.places(row)[:1])[0]
    if choice in ratings.raters:
        return ratings.of(row)[choice]
    num_classes = prepared.num_classes
    labels = as_labels(ratings.masks(ratings.places(row)), num_classes)
    return as_stored(consensus_mask(choice, labels, num_classes), num_classes)
