"""Networks by a config, as they are trained and as they infer."""

import inspect
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from torch import nn
from yacs.config import CfgNode

from mhsvm.config import to_dict
from mhsvm.layers.mixers import MIXERS
from mhsvm.models import create_model, load_weights
from mhsvm.models.registry import MODELS
from mhsvm.ops.dispatch import ENVIRONMENT_VARIABLE
from mhsvm.runtime.graphs import GraphedModel

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE as PoolHandle

log = logging.getLogger(__name__)


def choose_backend(config: CfgNode, backend: str | None = None) -> str:
    """The `backend` of a command's option, else "auto" where MHSVM_BACKEND is set, else `config.model.backend`."""
    # "auto" lets the dispatch ask the environment, and name it when it is wrong.
    return backend or ("auto" if os.environ.get(ENVIRONMENT_VARIABLE) else config.model.backend)


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
        log.info("weights from %s: %s", node.weights, load_weights(model, node.weights))
    return model


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
    """A model as it infers RGB images of `size` (h, w): if it `captures`, as a CUDA graph of batches, maybe in the
    memory `pool` of others."""
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
