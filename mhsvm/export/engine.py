"""A trained UltraLight VM-UNet as the C engine takes it: shared by all formats that hold this engine."""

import numpy as np

from mhsvm.export.formats import Export
from mhsvm.models import UltraLightVMUNet, ultralight_native
from mhsvm.models.ultralight_weights import pack_weights


def unsupported_reason(export: Export) -> str | None:
    """Why the C engine cannot hold a model, or None if it can."""
    if not isinstance(export.model, UltraLightVMUNet):
        return f"the C engine runs ultralight_vm_unet, not {export.facts.model}"
    if export.facts.normalization != "minmax":
        return f"the C engine normalizes by minmax, not by {export.facts.normalization}"
    if export.model.in_channels != 3:
        return f"the C engine takes RGB images, and the network has {export.model.in_channels} channels"
    return ultralight_native.changed_reason(export.model)


def engine_arguments(export: Export) -> dict:
    """The fields of `ultralight_network` by name."""
    assert isinstance(export.model, UltraLightVMUNet)
    return ultralight_native.network_arguments(export.model)


def engine_weights(export: Export, *, significant_bits: int = 24) -> np.ndarray:
    """Weights, float32 (n,), in the order of the engine; see `pack_weights`.

    Raises:
        ValueError: One is not finite.
    """
    assert isinstance(export.model, UltraLightVMUNet)
    weights = pack_weights(export.model, significant_bits=significant_bits)
    check_range(np.abs(weights).max(), half=False)
    return weights


def check_range(greatest: float, *, half: bool) -> None:
    """Check that 16 bits, with `half`, or a float can hold the weight of the greatest magnitude.

    Raises:
        ValueError: It is too large, or not finite.
    """
    if not greatest < float(np.finfo(np.float16 if half else np.float32).max):
        if half and np.isfinite(greatest):
            raise ValueError(f"a weight is {greatest:g}, which 16 bits cannot hold: leave `half` out")
        raise ValueError(f"a weight is {greatest:g}, which a float cannot hold: the training has diverged")
