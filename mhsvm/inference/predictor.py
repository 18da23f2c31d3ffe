"""Prediction of masks for images of any size.

Shape letters: h w the image's own size in pixels, k classes.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mhsvm.inference.postprocessing import clean_mask
from mhsvm.inference.probability import check_finite, probabilities, resize_probability, to_mask
from mhsvm.inference.tta import find_transforms
from mhsvm.prepare.decode import decode_image, to_rgb
from mhsvm.prepare.resize import resize_image
from mhsvm.runtime.numerics import numerics
from mhsvm.threads import compute_alone_after_fork, even_parts, image_threads

ImageLike = str | os.PathLike | Image.Image | np.ndarray


class Prediction(NamedTuple):
    """The prediction for one image.

    Attributes:
        mask: uint8 (h, w): 1 is lesion, or the class index of each pixel.
        probability: float32 (h, w) of lesion, or (k, h, w) of each class.
    """

    mask: np.ndarray
    probability: np.ndarray


class Predictor:
    """Segments images of any size.

    An image is resized as for a prepared set and normalized as for training. The probability is resized to the image's
    own size (bilinear), then thresholded, then cleaned where asked.

    Args:
        models: Each takes normalized images (b, 3, H, W) and returns logits; put into evaluation mode. The
            probabilities of several are averaged.
        normalize: Turns float images (b, 3, H, W), 0..255, into inputs of the models.
        size: (H, W) of the models' inputs, in pixels.
        threshold: Probability at and above which a pixel is lesion; several classes take the predicted class.
        device: The device of the models.
        augmentation: TTA transforms whose probabilities are averaged, see `mhsvm.inference.tta.find_transforms`.
        largest_component, fill_holes: See `mhsvm.inference.postprocessing.clean_mask`; the probability is not changed.
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
        compute_alone_after_fork()
        self.models = tuple(model.eval() for model in models)
        self.normalize = normalize
        self.size = size
        self.threshold = threshold
        self.device = device
        self.transforms = find_transforms(augmentation, size)
        self.largest_component = largest_component
        self.fill_holes = fill_holes

    def __call__(self, image: ImageLike) -> Prediction:
        """Segment one image.

        Args:
            image: A file or PIL image (both made upright by EXIF orientation), or uint8 (h, w, 3) RGB or (h, w).
        Returns:
            mask, probability, at the image's own size.
        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The image cannot be read or has another type or shape, or the weights have diverged.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Prediction]:
        """Segment images of any sizes together; arguments and errors as for one.

        On a GPU, each model and TTA transform takes one pass. On up to four threads of a CPU, each thread takes some of
        the images, which is twice as fast as to divide each operation of a small network.
        """
        # the masks of a checkpoint must not depend on the kind of GPU
        with numerics(tf32=False, deterministic=False):
            parts = even_parts(images, num_threads=torch.get_num_threads()) if self._divides() else [images]
            if len(parts) == 1:
                return self._predict_part(images)
            with image_threads(min(len(parts), torch.get_num_threads())) as pool:
                return [prediction for part in pool.map(self._predict_part, parts) for prediction in part]

    def _divides(self) -> bool:
        """Whether threads may run the models on parts of a batch."""
        modules = (module for model in self.models for module in model.modules())
        # hooks expect the whole batch, and autocast holds in one thread only
        return (
            self.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
        )

    @torch.inference_mode()
    def _predict_part(self, images: Sequence[ImageLike]) -> list[Prediction]:
        arrays = [read_rgb(image) for image in images]
        resized = np.stack([resize_image(array, self.size) for array in arrays])
        inputs = self.normalize(torch.from_numpy(resized).to(self.device).permute(0, 3, 1, 2).float())
        maps = self.mean_probability(inputs).cpu()
        check_finite(maps)
        return [self._at_own_size(maps[row : row + 1], array.shape[:2]) for row, array in enumerate(arrays)]

    def mean_probability(self, inputs: Tensor) -> Tensor:
        """The mean over all models and TTA transforms: normalized images (b, 3, H, W) -> (b, 1 or k, H, W)."""
        maps = [
            transform.undo(self._probability(model, transform.apply(inputs)))
            for model in self.models
            for transform in self.transforms
        ]
        return maps[0] if len(maps) == 1 else torch.stack(maps).mean(dim=0)

    def _probability(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Probabilities of one model, which returns logits."""
        return probabilities(model(inputs))

    def _at_own_size(self, maps: Tensor, size: tuple[int, int]) -> Prediction:
        maps = resize_probability(maps, size)
        probability = maps[0, 0] if maps.shape[1] == 1 else maps[0]
        mask = to_mask(maps, self.threshold)[0].numpy()
        if self.largest_component or self.fill_holes:
            mask = clean_mask(mask, largest_component=self.largest_component, fill_holes=self.fill_holes)
        return Prediction(mask, probability.numpy())


class MeanLogits(nn.Module):
    """A predictor as a network: normalized images (b, 3, H, W) -> logits of its mean probability (b, 1 or k, H, W)."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self._predictor = predictor

    def forward(self, inputs: Tensor) -> Tensor:
        models, transforms = self._predictor.models, self._predictor.transforms
        if len(models) == len(transforms) == 1:
            return models[0](inputs)
        probability = self._predictor.mean_probability(inputs)
        # the smallest distance to 1 in float32
        return probability.logit(eps=2**-24) if probability.shape[1] == 1 else probability.clamp_min(2**-24).log()


def read_rgb(image: ImageLike) -> np.ndarray:
    """Read any kind of image as uint8 (h, w, 3).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The image cannot be read, or an array has another type or shape.
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
        return to_rgb(image)
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image is a path, a PIL image or a uint8 array; received a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or image.size == 0:
        raise ValueError(
            f"an image array is uint8 (h, w, 3) in RGB order or (h, w), with values 0..255; received {image.dtype} "
            f"{image.shape}. Channels come last, alpha has to go, and values of 0..1 have to be scaled"
        )
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
