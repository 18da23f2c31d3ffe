"""Inputs and targets of a network from a uint8 batch: normalization, and one affine transform a sample."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

# Programs that search the extremes of an image, the values that each reads at once, and the cells of a program.
_PARTS, _VALUES, _CELLS = 32, 2048, 512
# Without fused multiply-adds, products round as in torch, so cells have the same sources.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


@dataclass(frozen=True)
class ChannelStatistics:
    """Normalization to mean 0 and standard deviation 1 by statistics of red, green and blue, of values in 0..1."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, images: Tensor) -> Tensor:
        """Normalize float images (b, 3, h, w), 0..255."""
        # Plain numbers: copying a tensor to a GPU would synchronize with it.
        channels = zip(images.unbind(dim=1), self.mean, self.std, strict=True)
        return torch.stack([(channel / 255 - mean) / std for channel, mean, std in channels], dim=1)


def minmax(images: Tensor) -> Tensor:
    """Scale each image: its minimum over all channels becomes 0 and its maximum 255; constant ones become 0."""
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1.0) * 255


def prepare_batch(
    images: Tensor,
    masks: Tensor,
    transforms: Tensor | None = None,
    *,
    normalize: Callable[[Tensor], Tensor] = minmax,
    num_classes: int = 1,
    soft_targets: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Normalize images, then transform images and masks about their centers by nearest neighbors.

    The backend "triton" computes it in one kernel, or in two for `minmax`. No backend waits for the device.

    Args:
        images: uint8 (b, 3, h, w).
        masks: uint8 (b, h, w).
        transforms: (b, 2, 2), rotations and flips of points (x right, y down); None is the identity. Cells whose source
            is outside the map are 0.
        normalize: Function from float images (b, 3, h, w), 0..255, to inputs. The kernels support `minmax` and any
            `ChannelStatistics`.
        num_classes: 1 for coverage masks; several for class indices.
        soft_targets: Keep the fractions of a coverage mask in the target; otherwise it is 1 from half coverage on.
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        Inputs, float32 (b, 3, h, w).
        Targets: float32 (b, 1, h, w) in 0..1 for one class, int64 (b, h, w) for several.
    Raises:
        ValueError: The shapes do not fit together, or `backend` is unknown or cannot run here or with this
            normalization.
    """
    if images.ndim != 4 or images.shape[1] != 3 or masks.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            "images are (b, 3, h, w), and masks (b, h, w) of the same size; received "
            f"{tuple(images.shape)} and {tuple(masks.shape)}"
        )
    refuse_empty("images", images, "b, 3, h, w")
    return PREPARE_BATCH(
        backend,
        images,
        masks,
        transforms,
        normalize=normalize,
        num_classes=num_classes,
        soft_targets=soft_targets,
    )


def prepare_batch_reference(
    images: Tensor,
    masks: Tensor,
    transforms: Tensor | None = None,
    *,
    normalize: Callable[[Tensor], Tensor] = minmax,
    num_classes: int = 1,
    soft_targets: bool = False,
) -> tuple[Tensor, Tensor]:
    """`prepare_batch` by torch's operations."""
    inputs, targets = normalize(images.float()), masks.float().unsqueeze(1)
    if transforms is not None:
        transformed = _transform(torch.cat([inputs, targets], dim=1), transforms.to(inputs.device))
        inputs, targets = transformed[:, :-1], transformed[:, -1:]
    if num_classes > 1:
        return inputs, targets.squeeze(1).long()
    return inputs, targets / 255 if soft_targets else (targets >= 128).float()


def _transform(maps: Tensor, transforms: Tensor) -> Tensor:
    """Transform maps (b, c, h, w) about their centers; nearest neighbors, zeros from outside the map."""
    h, w = maps.shape[-2:]
    # grid_sample takes the inverse, in coordinates from -1 to 1 along each side. It is computed elementwise, since a
    # matrix product may be rounded to fewer bits than a position needs.
    back = transforms.transpose(1, 2)[:, None, None]
    x = _cell_centers(w, maps).expand(h, w)
    y = _cell_centers(h, maps)[:, None].expand(h, w)
    grid = torch.stack(
        [
            x * back[..., 0, 0] + y * (back[..., 0, 1] * (h / w)),
            x * (back[..., 1, 0] * (w / h)) + y * back[..., 1, 1],
        ],
        dim=-1,
    )
    return F.grid_sample(maps, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _cell_centers(num_cells: int, like: Tensor) -> Tensor:
    """Coordinates (num_cells,) of the cells of a side that runs from -1 to 1."""
    return (2 * torch.arange(num_cells, dtype=like.dtype, device=like.device) + (1 - num_cells)) / num_cells


def triton_prepare_batch(
    images: Tensor,
    masks: Tensor,
    transforms: Tensor | None = None,
    *,
    normalize: Callable[[Tensor], Tensor] = minmax,
    num_classes: int = 1,
    soft_targets: bool = False,
) -> tuple[Tensor, Tensor]:
    """`prepare_batch` by kernels."""
    from mhsvm.ops.fused.prepare_batch_kernels import prepare_batch_fwd_kernel, prepare_batch_fwd_kernel_extremes

    # No copy: this is the memory order of a data set.
    images, masks = images.permute(0, 2, 3, 1).contiguous(), masks.contiguous()
    b, h, w, _ = images.shape
    inputs = torch.empty((b, 3, h, w), dtype=torch.float32, device=images.device)
    shape, dtype = ((b, 1, h, w), torch.float32) if num_classes == 1 else ((b, h, w), torch.int64)
    targets = torch.empty(shape, dtype=dtype, device=images.device)
    transforms = None if transforms is None else transforms.to(images.device).contiguous()
    extremes = None
    with torch.cuda.device_of(images):
        if normalize is minmax:
            statistics = ChannelStatistics((0.0,) * 3, (1.0,) * 3)
            extremes = torch.empty((b, 2, _PARTS), dtype=torch.uint8, device=images.device)
            prepare_batch_fwd_kernel_extremes[(_PARTS, b)](
                p_images=images, p_extremes=extremes, num_values=h * w * 3, PARTS=_PARTS, L=_VALUES, **_OPTIONS
            )
        else:
            assert isinstance(normalize, ChannelStatistics)
            statistics = normalize
        (mean_r, mean_g, mean_b), (std_r, std_g, std_b) = statistics.mean, statistics.std
        prepare_batch_fwd_kernel[(-(-h * w // _CELLS), b)](
            p_images=images, p_masks=masks, p_transforms=transforms, p_extremes=extremes, p_inputs=inputs,
            p_targets=targets, height=h, width=w, mean_r=mean_r, mean_g=mean_g, mean_b=mean_b, std_r=std_r,
            std_g=std_g, std_b=std_b, PARTS=_PARTS, SOFT=soft_targets, L=_CELLS, **_OPTIONS,
        )  # fmt: skip
    return inputs, targets


def _unsupported_by_triton(
    images: Tensor,
    masks: Tensor,
    transforms: Tensor | None = None,
    *,
    normalize: Callable[[Tensor], Tensor] = minmax,
    **options: int,
) -> str | None:
    if normalize is not minmax and not isinstance(normalize, ChannelStatistics):
        return "its kernels normalize by minmax or ChannelStatistics, and normalize is another function"
    return unsupported_by_triton(images)


PREPARE_BATCH = Operation("prepare_batch", prepare_batch_reference)
PREPARE_BATCH.register("triton", triton_prepare_batch, unsupported_reason=_unsupported_by_triton, traceable=False)
