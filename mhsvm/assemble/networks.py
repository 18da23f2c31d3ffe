"""Networks by a config, for training and for inference."""

import inspect
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn
from yacs.config import CfgNode

from mhsvm.config import to_dict
from mhsvm.layers.mixers import MIXERS
from mhsvm.models import create_model, load_weights
from mhsvm.models.pretrained import find_checkpoint
from mhsvm.models.registry import MODELS
from mhsvm.ops.dispatch import ENVIRONMENT_VARIABLE, check_backend
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN
from mhsvm.ops.verify import ScanShape, make_scan_inputs
from mhsvm.runtime.graphs import GraphedModel
from mhsvm.store import PreparedSet
from mhsvm.text_file import first_line

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE as PoolHandle

log = logging.getLogger(__name__)

# A prepared set holds RGB images.
_IMAGE_CHANNELS = 3


def choose_backend(config: CfgNode, backend: str | None = None) -> str:
    """The `backend` of a command's option, else "auto" where MHSVM_BACKEND is set, else `config.model.backend`."""
    # "auto" lets the dispatch ask the environment, and name it when it is wrong.
    return backend or ("auto" if os.environ.get(ENVIRONMENT_VARIABLE) else config.model.backend)


def check_backend_runs(backend: str, device: torch.device) -> None:
    """Make sure that the scans can run on a backend and device.

    Args:
        backend: From `choose_backend`.
        device: The device that will compute.
    Raises:
        ValueError: The backend is unknown, or cannot run there; the message has the reason.
    """
    check_backend(backend)
    SELECTIVE_SCAN.choose(backend, **make_scan_inputs(ScanShape(1, 1, 1, 1), dtype=torch.float32, device=device))


def check_image_size(model: nn.Module, config: CfgNode, prepared: PreparedSet) -> None:
    """Make sure that a network takes the images of a set.

    A network without the attribute `stride` computes one black image, on its device.

    Raises:
        ValueError: It does not take their size or channels, or its output does not have one map for each class.
    """
    (h, w), name = prepared.size, config.model.name
    if config.model.in_channels != _IMAGE_CHANNELS:
        raise ValueError(
            f"the images of {prepared.path} have {_IMAGE_CHANNELS} channels, and model.in_channels is "
            f"{config.model.in_channels}: set model.in_channels {_IMAGE_CHANNELS}"
        )
    stride = getattr(model, "stride", None)
    if not isinstance(stride, int):
        _compute_one(model, (1, _IMAGE_CHANNELS, h, w), name=name, num_classes=config.model.num_classes)
    elif h % stride or w % stride:
        fitting = " x ".join(str(max(round(side / stride), 1) * stride) for side in (h, w))
        raise ValueError(
            f"{name} takes images whose height and width are multiples of {stride}, and those of {prepared.path} are "
            f"{h} x {w}: prepare it at another size (data.size for a folder), such as {fitting}"
        )


def _compute_one(model: nn.Module, shape: tuple[int, ...], *, name: str, num_classes: int) -> None:
    device, training = next(model.parameters()).device, model.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        try:
            output = model.eval()(torch.zeros(shape, device=device))
        except RuntimeError as error:
            # torch raises it for shapes that do not fit
            shown = " x ".join(map(str, shape[1:]))
            raise ValueError(f"{name} cannot compute an image of {shown}: {first_line(str(error))}") from error
        finally:
            model.train(training)
    expected = (1, num_classes, *shape[2:])
    if tuple(output.shape) != expected:
        raise ValueError(f"{name} returns logits {expected} for an image {shape}; received {tuple(output.shape)}")


def build_model(config: CfgNode, *, backend: str | None = None) -> nn.Module:
    """The network of `config.model`, with fresh weights or those of `config.model.weights`.

    Its operations run on `backend` if it is given, else as `choose_backend` says.
    """
    node = config.model
    takes_backend = "backend" in inspect.signature(MODELS[node.name].create).parameters
    model = create_model(
        node.name,
        num_classes=node.num_classes,
        in_channels=node.in_channels,
        **({"backend": choose_backend(config, backend)} if takes_backend else {}),
        **_arguments(config),
    )
    if node.weights:
        log.info("weights from %s: %s", node.weights, load_weights(model, find_checkpoint(node.weights)))
    return model


def forget_initial_weights(config: CfgNode) -> None:
    """Clear the settings of the weights that a training started from: others will be loaded, and they may be gone."""
    node = config.model
    node.weights = ""
    if "encoder_weights" in node.get(node.name, {}):
        node[node.name].encoder_weights = ""


def _arguments(config: CfgNode) -> dict:
    """Arguments of the network; its mixer with those of `config.mixer`, if it has any."""
    arguments = dict(config.model.get(config.model.name, {}))
    mixer = str(arguments.get("mixer"))
    if mixer in config.mixer:
        arguments["mixer"] = partial(MIXERS[mixer], **config.mixer[mixer])
    return arguments


def build_inference(
    model: nn.Module,
    *,
    size: tuple[int, int],
    batch_size: int,
    captures: bool,
    pool: "PoolHandle | None" = None,
) -> nn.Module:
    """Prepare a model for inference on RGB images of `size` (h, w).

    If it `captures`, it runs as a CUDA graph of batches, in the memory `pool` of other graphs if given.
    """
    return GraphedModel(model, (batch_size, 3, *size), pool=pool) if captures else model


def describe_model(config: CfgNode) -> dict:
    """Name and arguments of the network, without those that choose how it is computed."""
    node = config.model
    arguments = to_dict(node.get(node.name, CfgNode()))
    mixer = arguments.get("mixer")
    return {
        "name": node.name,
        "num_classes": node.num_classes,
        "in_channels": node.in_channels,
        **arguments,
        **({f"mixer {mixer}": to_dict(config.mixer[mixer])} if mixer in config.mixer else {}),
    }
