"""What every network asks of an image batch."""

from torch import Tensor


def check_image(image: Tensor, *, in_channels: int, stride: int) -> Tensor:
    """Return the batch with the channels that a network was built for.

    Args:
        image: Normalised batch (b, in_channels, H, W); a network of three channels takes (b, 1, H, W) too and
            repeats it.
        in_channels: Channels of the network.
        stride: H and W must be multiples of it.
    Returns:
        (b, in_channels, H, W)
    Raises:
        ValueError: Other axes or channels, integers, or a size that does not divide: the padded size is named.
    """
    if image.ndim != 4:
        raise ValueError(f"an image batch is (b, {in_channels}, H, W); received {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"an image batch is floating point and normalised; received {image.dtype}")
    b, c, h, w = image.shape
    if c != in_channels and not (c == 1 and in_channels == 3):
        raise ValueError(
            f"the network was built for {in_channels} channels; received {c} in {tuple(image.shape)}. "
            f"Build it with in_channels={c}"
        )
    padded_h, padded_w = (max(-(-side // stride), 1) * stride for side in (h, w))
    if (h, w) != (padded_h, padded_w):
        raise ValueError(
            f"height and width must be multiples of {stride}; received {h} x {w}. "
            f"Pad or resize the image to {padded_h} x {padded_w}"
        )
    return image.expand(b, in_channels, h, w)
