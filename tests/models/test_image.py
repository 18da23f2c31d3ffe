import pytest
import torch

from mhsvm.models.image import check_image


def test_a_grey_image_is_repeated_for_three_channels():
    image = torch.randn(2, 1, 32, 64)
    assert torch.equal(check_image(image, in_channels=3, stride=32), image.repeat(1, 3, 1, 1))
    assert check_image(image, in_channels=1, stride=32).shape == image.shape


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 32, 32), r"an image batch is \(b, 3, H, W\); received \(3, 32, 32\)"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating point and normalized; received torch.uint8"),
        (torch.zeros(1, 4, 32, 32), "built for 3 channels; received 4 in .* Build it with in_channels=4"),
        (torch.zeros(1, 3, 33, 64), "multiples of 32; received 33 x 64. Pad or resize the image to 64 x 64"),
        (torch.zeros(1, 3, 0, 64), "received 0 x 64. Pad or resize the image to 32 x 64"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        check_image(image, in_channels=3, stride=32)
