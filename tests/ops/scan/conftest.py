from collections.abc import Callable

import pytest
from torch import Tensor


@pytest.fixture
def sequence_inputs(scan_inputs) -> Callable[..., dict[str, Tensor]]:
    """`scan_inputs` with time before channels: u, delta and z (b, l, d), B and C (b, l, g, n)."""

    def make(**sizes) -> dict[str, Tensor]:
        inputs = scan_inputs(**sizes)
        return {
            name: x.detach().movedim(-1, 1).contiguous().requires_grad_() if x.dim() > 2 else x
            for name, x in inputs.items()
        }

    return make
