"""Skin-lesion segmentation with selective-scan networks: MHS-VM, UltraLight VM-UNet and VM-UNet.

Importing this package is quick: the modules that a name needs are loaded when the name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mhsvm.openmp import limit_threads
from mhsvm.version import __version__ as __version__

# before any module of the package imports torch
limit_threads()

if TYPE_CHECKING:
    from mhsvm import metrics, ops, routes
    from mhsvm.api import (
        Prediction,
        Predictor,
        Run,
        TestResult,
        draw_prediction,
        evaluate,
        export_program,
        load_config,
        load_predictor,
        predict,
        train,
        write_result,
    )
    from mhsvm.layers import MultiHeadScan, PVMLayer, replace_convs
    from mhsvm.models import create_model, list_models, list_pretrained, load_weights
    from mhsvm.ops import selective_scan
    from mhsvm.runtime.graphs import GraphedModel


__all__ = [
    "GraphedModel",
    "MultiHeadScan",
    "PVMLayer",
    "Prediction",
    "Predictor",
    "Run",
    "TestResult",
    "create_model",
    "draw_prediction",
    "evaluate",
    "export_program",
    "list_models",
    "list_pretrained",
    "load_config",
    "load_predictor",
    "load_weights",
    "metrics",
    "ops",
    "predict",
    "replace_convs",
    "routes",
    "selective_scan",
    "train",
    "write_result",
]

_HOMES = {
    "GraphedModel": "mhsvm.runtime.graphs",
    "MultiHeadScan": "mhsvm.layers",
    "PVMLayer": "mhsvm.layers",
    "Prediction": "mhsvm.api",
    "Predictor": "mhsvm.api",
    "Run": "mhsvm.api",
    "TestResult": "mhsvm.api",
    "create_model": "mhsvm.models",
    "draw_prediction": "mhsvm.api",
    "evaluate": "mhsvm.api",
    "export_program": "mhsvm.api",
    "list_models": "mhsvm.models",
    "list_pretrained": "mhsvm.models",
    "load_config": "mhsvm.api",
    "load_predictor": "mhsvm.api",
    "load_weights": "mhsvm.models",
    "predict": "mhsvm.api",
    "replace_convs": "mhsvm.layers",
    "selective_scan": "mhsvm.ops",
    "train": "mhsvm.api",
    "write_result": "mhsvm.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"mhsvm.{name}")
    raise AttributeError(f"module 'mhsvm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
