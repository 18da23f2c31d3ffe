import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mhsvm.layers import GroupNormGELU


@pytest.mark.parametrize(
    ("resize", "resized"),
    [
        ("keep", lambda x: x),
        ("halve", lambda x: F.max_pool2d(x, 2)),
        ("double", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
    ],
)
def test_has_the_parameters_of_torchs_own(resize, resized):
    own, torchs = GroupNormGELU(4, 8, resize=resize), nn.GroupNorm(4, 8)
    assert own.extra_repr() == f"{torchs.extra_repr()}, resize={resize!r}"
    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.normal_()
    own.load_state_dict(torchs.state_dict())
    x = torch.randn(2, 8, 4, 6)
    expected = F.gelu(resized(torchs(x)))
    assert torch.equal(own(x), expected)
    skip = torch.randn_like(expected)
    assert torch.equal(own(x, skip=skip), expected + skip)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="resize is one of keep, halve, double; received 'shrink'"):
        GroupNormGELU(4, 8, resize="shrink")(torch.randn(1, 8, 2, 2))
    with pytest.raises(ValueError, match="a map to be halved has even sides; received 3 x 4"):
        GroupNormGELU(4, 8, resize="halve")(torch.randn(1, 8, 3, 4))
