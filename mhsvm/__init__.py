"""Skin-lesion segmentation with selective-scan networks: MHS-VM, UltraLight VM-UNet and VM-UNet.

Importing this package is quick: what a name below needs is loaded when the name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mhsvm.version import __version__ as __version__

if TYPE_CHECKING:
    from mhsvm import metrics, ops, routes
    from mhsvm.assemble import load_predictor
    from mhsvm.layers import MultiHeadScan, PVMLayer
    from mhsvm.models import create_model, list_models, list_pretrained, load_weights
    from mhsvm.ops import selective_scan
    from mhsvm.runtime.graphs import GraphedModel


__all__ = [
    "GraphedModel",
    "MultiHeadScan",
    "PVMLayer",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_predictor",
    "load_weights",
    "metrics",
    "ops",
    "routes",
    "selective_scan",
]

_HOMES = {
    "GraphedModel": "mhsvm.runtime.graphs",
    "MultiHeadScan": "mhsvm.layers",
    "PVMLayer": "mhsvm.layers",
    "create_model": "mhsvm.models",
    "list_models": "mhsvm.models",
    "list_pretrained": "mhsvm.models",
    "load_predictor": "mhsvm.assemble",
    "load_weights": "mhsvm.models",
    "selective_scan": "mhsvm.ops",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"mhsvm.{name}")
    raise AttributeError(f"module 'mhsvm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
