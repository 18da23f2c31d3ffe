import torch
from torch import nn

from mhsvm.layers import PatchEmbed, PatchExpand, PatchMerge


def identity(linear: nn.Linear) -> None:
    with torch.no_grad():
        linear.weight.copy_(torch.eye(*linear.weight.shape))


def test_merge_reads_the_cells_of_a_square_down_the_columns():
    merge = PatchMerge(1)
    merge.norm = nn.Identity()
    merge.linear = nn.Identity()
    x = torch.arange(24.0).reshape(1, 4, 6, 1)
    assert merge(x).shape == (1, 2, 3, 4)
    assert merge(x)[0, 0, 0].tolist() == [0, 6, 1, 7]
    assert merge(x)[0, 1, 2].tolist() == [16, 22, 17, 23]


def test_merge_halves_the_map_and_doubles_the_channels():
    assert PatchMerge(6)(torch.randn(2, 4, 2, 6)).shape == (2, 2, 1, 12)


def test_expand_lays_channels_out_as_cells():
    expand = PatchExpand(4, factor=2)
    expand.norm = nn.Identity()
    identity(expand.linear)
    # 8 channels after the linear layer, the last four of them 0: (row 0: c0 c1 | c2 c3), row 1: 0
    x = torch.arange(1.0, 9.0).reshape(1, 1, 2, 4)
    assert expand(x).shape == (1, 2, 4, 2)
    assert expand(x)[0, 0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert expand(x)[0, 1].abs().max() == 0


def test_expand_by_four_quarters_the_channels():
    assert PatchExpand(8, factor=4)(torch.randn(2, 3, 1, 8)).shape == (2, 12, 4, 2)


def test_embed_norms_patches():
    embed = PatchEmbed(3, 8)
    x = torch.randn(2, 3, 8, 12)
    y = embed(x)
    assert y.shape == (2, 2, 3, 8)
    patch = (embed.proj.weight * x[1, :, 4:8, 8:12]).sum(dim=(1, 2, 3)) + embed.proj.bias
    torch.testing.assert_close(y[1, 1, 2], nn.functional.layer_norm(patch, (8,)), rtol=1e-4, atol=1e-5)
