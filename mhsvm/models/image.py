"""The check of an image batch that all networks share."""

from torch import Tensor


def check_image(image: Tensor, *, in_channels: int, stride: int) -> Tensor:
    """Check a batch, and repeat a single channel if the network has three.

    Args:
        image: Normalized batch (b, in_channels, H, W), or (b, 1, H, W) for a network of three channels.
        in_channels: Channels of the network.
        stride: Divisor of H and W.
    Returns:
        (b, in_channels, H, W)
    Raises:
        ValueError: The shape is wrong, the type is an integer type, or a side is not a multiple of the stride; the
            message then names the padded size.
    """
    if image.ndim != 4:
        raise ValueError(f"an image batch is (b, {in_channels}, H, W); received {tuple(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"an image batch is floating point and normalized; received {image.dtype}")
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
