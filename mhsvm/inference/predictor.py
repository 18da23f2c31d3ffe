"""From an image of any size to its mask at that size.

Shape letters: h w the image's own size in pixels, k classes.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from mhsvm.inference.postprocessing import clean_mask
from mhsvm.inference.probability import check_finite, probabilities, resize_probability, to_mask
from mhsvm.inference.tta import find_views
from mhsvm.prepare.decode import decode_image, to_rgb
from mhsvm.prepare.resize import resize_image
from mhsvm.runtime.numerics import numerics

ImageLike = str | os.PathLike | Image.Image | np.ndarray


class Prediction(NamedTuple):
    """What a predictor says of one image.

    Attributes:
        mask: uint8 (h, w): 1 is lesion, or the index of each pixel's class.
        probability: float32 (h, w) of lesion, or (k, h, w) of each class.
    """

    mask: np.ndarray
    probability: np.ndarray


class Predictor:
    """Segments images: resized as for preparing a set, normalised as for training, the probability brought back to
    the image's own size (bilinear), and only then decided, and cleaned where asked.

    Args:
        models: Each takes normalised images (b, 3, H, W) and returns logits; put into evaluation mode. The
            probabilities of several are averaged.
        normalize: From float images (b, 3, H, W), 0..255, to what the models take.
        size: (H, W) that the models get, in pixels.
        threshold: Probability from which a pixel is lesion; several classes take the likeliest.
        device: Where the models are.
        augmentation: Views at test time whose probabilities are averaged, see `mhsvm.inference.tta.find_views`.
        largest_component, fill_holes: See `mhsvm.inference.postprocessing.clean_mask`; the probability stays as it is.
    Raises:
        ValueError: There is no model, or the augmentation is unknown or does not fit the size.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        normalize: Callable[[Tensor], Tensor],
        size: tuple[int, int],
        threshold: float,
        device: torch.device,
        augmentation: str = "none",
        largest_component: bool = False,
        fill_holes: bool = False,
    ) -> None:
        if not models:
            raise ValueError("a predictor needs at least one model; received none")
        self.models = tuple(model.eval() for model in models)
        self.normalize = normalize
        self.size = size
        self.threshold = threshold
        self.device = device
        self.views = find_views(augmentation, size)
        self.largest_component = largest_component
        self.fill_holes = fill_holes

    def __call__(self, image: ImageLike) -> Prediction:
        """Segment one image.

        Args:
            image: A file, a PIL image (both turned upright by EXIF orientation), or uint8 (h, w, 3) RGB or (h, w).
        Returns:
            mask, probability, at the image's own size.
        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no readable image, or an array of another type or shape; or the weights have diverged.
        """
        return self.predict_batch([image])[0]

    @torch.inference_mode()
    def predict_batch(self, images: Sequence[ImageLike]) -> list[Prediction]:
        """Segment images of any sizes in one pass through each model and view; arguments and errors as for one."""
        arrays = [read_rgb(image) for image in images]
        resized = np.stack([resize_image(array, self.size) for array in arrays])
        inputs = self.normalize(torch.from_numpy(resized).to(self.device).permute(0, 3, 1, 2).float())
        # the masks of a checkpoint shall not depend on what kind of GPU segments
        with numerics(tf32=False, deterministic=False):
            maps = self._mean_probability(inputs).cpu()
        check_finite(maps)
        return [self._at_own_size(maps[row : row + 1], array.shape[:2]) for row, array in enumerate(arrays)]

    def _mean_probability(self, inputs: Tensor) -> Tensor:
        """Of all models in all views: inputs (b, 3, H, W) -> (b, 1 or k, H, W)."""
        maps = [view.undo(probabilities(model(view.apply(inputs)))) for model in self.models for view in self.views]
        return maps[0] if len(maps) == 1 else torch.stack(maps).mean(dim=0)

    def _at_own_size(self, maps: Tensor, size: tuple[int, int]) -> Prediction:
        maps = resize_probability(maps, size)
        probability = maps[0, 0] if maps.shape[1] == 1 else maps[0]
        mask = to_mask(maps, self.threshold)[0].numpy()
        if self.largest_component or self.fill_holes:
            mask = clean_mask(mask, largest_component=self.largest_component, fill_holes=self.fill_holes)
        return Prediction(mask, probability.numpy())


def read_rgb(image: ImageLike) -> np.ndarray:
    """Any kind of image as uint8 (h, w, 3).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no readable image, or an array of another type or shape.
    """
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        if not path.is_file():
            raise FileNotFoundError(f"there is no image {path}")
        try:
            return decode_image(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image is a path, a PIL image or a uint8 array; received a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or image.size == 0:
        raise ValueError(
            f"an image array is uint8 (h, w, 3) in RGB order or (h, w), with values 0..255; received {image.dtype} "
            f"{image.shape}. Channels come last, alpha has to go, and values of 0..1 have to be scaled"
        )
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
