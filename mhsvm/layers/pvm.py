"""Parallel Vision Mamba: one small sequence mixer shared by several slices of the channels."""

import torch
from torch import Tensor, nn

from mhsvm.layers.layer_norm import LayerNorm
from mhsvm.layers.linear import Linear
from mhsvm.layers.mixers import Mixer, find_mixer
from mhsvm.layers.plain import is_plain
from mhsvm.ops.fused.branches import join_norm, split_norm


class PVMLayer(nn.Module):
    """Split the channels into branches, mix each with one shared block, join them and project.

    All branches of all samples form one batch of sequences. The layer can replace any layer that maps channels and
    keeps the size of the map.

    Args:
        in_channels: Channels c, a multiple of `branches`.
        out_channels: Channels o.
        branches: Number of slices p.
        mixer: Name of the shared block, see `mhsvm.layers.mixers`; or its constructor, width c/p -> a module on
            sequences (b, l, c/p), which must not change its input. A module whose attribute `takes_size` is True mixes
            maps: it is called with `size=(h, w)` too.
        backend: For the norm and the projection, as in `mhsvm.ops.selective_scan`; the mixer has its own.
    Raises:
        ValueError: The branches do not divide the channels, the mixer is unknown, or the input has other channels or,
            for a mixer of maps, another number of spatial axes than two.
    Source: Wu et al. 2024, arXiv 2403.20035.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        branches: int = 4,
        mixer: str | Mixer = "mamba",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if branches < 1 or in_channels % branches:
            raise ValueError(
                f"the branches must divide in_channels; received in_channels={in_channels}, "
                f"branches={branches}. Use a divisor of {in_channels} for branches, or another width"
            )
        self.in_channels = in_channels
        self.branches = branches
        self.backend = backend
        self.norm = LayerNorm(in_channels, backend=backend)
        self.mixer = find_mixer(mixer)(in_channels // branches)
        self.skip_scale = nn.Parameter(torch.ones(1))
        self.proj = Linear(in_channels, out_channels, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, *spatial) -> (b, o, *spatial), any number of spatial axes."""
        if x.ndim < 3 or x.shape[1] != self.in_channels:
            raise ValueError(f"the input is (b, {self.in_channels}, *spatial); received {tuple(x.shape)}")
        return self.proj(self._mix(x)).transpose(1, 2).unflatten(2, x.shape[2:])

    def _mix(self, x: Tensor) -> Tensor:
        """The mixed branches of a map, joined and normalized: (b, l, c)."""
        norm = self.norm
        if not is_plain(norm):
            rows = norm(x.flatten(2).transpose(1, 2))
            parts = rows.unflatten(2, (self.branches, -1)).transpose(1, 2).flatten(0, 1)  # (b*p, l, v)
            parts = self._mix_sequences(parts, x.shape[2:]) + self.skip_scale * parts
            return norm(parts.unflatten(0, (x.shape[0], self.branches)).transpose(1, 2).flatten(2))
        branches = split_norm(
            x,
            norm.weight,
            norm.bias,
            self.skip_scale,
            branches=self.branches,
            eps=norm.eps,
            backend=self.backend,
        )
        mixed = self._mix_sequences(branches.parts, x.shape[2:])
        return join_norm(mixed, branches, autocast_output=True, backend=self.backend)

    def _mix_sequences(self, parts: Tensor, spatial: torch.Size) -> Tensor:
        """The mixer's output for the branches (b*p, l, v) of a map with these spatial axes."""
        if not getattr(self.mixer, "takes_size", False):
            return self.mixer(parts)
        if len(spatial) != 2:
            raise ValueError(
                f"the mixer {type(self.mixer).__name__} takes maps (b, {self.in_channels}, h, w); received the spatial "
                f"axes {tuple(spatial)}. Use a mixer of sequences, such as mamba"
            )
        return self.mixer(parts, size=(spatial[0], spatial[1]))
