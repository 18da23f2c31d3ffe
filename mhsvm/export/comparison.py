"""An exported model against the network in float64, on the same images.

Shape letters: h w size of the network's images, k classes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mhsvm.data.augment import Normalization
from mhsvm.inference.probability import to_mask
from mhsvm.prepare.resize import resize_image

# Greatest difference of a probability: of float32 weights, and of weights in 16 bits.
LIMIT, HALF_LIMIT = 1e-4, 1e-2

# The exported model: RGB, uint8 (h, w, 3), of any size where the format resizes -> probability, float32 (k, h, w).
Exported = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """How an exported model differs from its network.

    Attributes:
        num_images: Images that were compared.
        greatest, mean: Greatest and mean absolute difference of the probabilities.
        num_different, num_pixels: Pixels of the masks that differ, of all.
        seconds, own_seconds: Median time of an image, of the exported model and of ours in float32.
    """

    num_images: int
    greatest: float
    mean: float
    num_different: int
    num_pixels: int
    seconds: float
    own_seconds: float

    def line(self) -> str:
        """The comparison for a reader."""
        return (
            f"{self.num_images} images against float64: probabilities differ by {self.greatest:.1e} at most, "
            f"{self.mean:.1e} on average; {self.num_different} of {self.num_pixels} mask pixels differ; "
            f"{1e3 * self.seconds:.1f} ms an image, {1e3 * self.own_seconds:.1f} ms with mhsvm"
        )


def compare(
    exported: Exported,
    model: nn.Module,
    exact: nn.Module,
    images: Sequence[np.ndarray],
    *,
    size: tuple[int, int],
    threshold: float,
    normalize: Normalization,
    resizes: bool = False,
) -> Comparison:
    """Run an exported model and its network on images.

    Args:
        exported: The exported model.
        model: The network in float32, in evaluation mode.
        exact: The same in float64.
        images: uint8 (H, W, 3) each, of any size.
        size: (h, w) of the network's images.
        threshold: Probability at and above which a pixel is lesion.
        normalize: The normalization of the network's training.
        resizes: Whether the exported model resizes images itself.
    """
    differences, num_different, times, own_times = [], 0, [], []
    for image in images:
        resized = resize_image(image, size)
        start = time.perf_counter()
        found = exported(image if resizes else resized)
        between = time.perf_counter()
        inputs = normalize(torch.from_numpy(resized).permute(2, 0, 1)[None].float())
        with torch.inference_mode():
            model(inputs)
            end = time.perf_counter()
            logits = exact(inputs.double())
        expected = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
        times.append(between - start)
        own_times.append(end - between)
        maps = torch.from_numpy(found)[None]
        differences.append((maps - expected).abs().double())
        num_different += int((to_mask(maps, threshold) != to_mask(expected, threshold)).sum())
    stacked = torch.stack(differences)
    return Comparison(
        num_images=len(images),
        # a NaN is greater than any limit
        greatest=float(stacked.nan_to_num(torch.inf).max()),
        mean=float(stacked.mean()),
        num_different=num_different,
        num_pixels=len(images) * size[0] * size[1],
        seconds=float(np.median(times)),
        own_seconds=float(np.median(own_times)),
    )
