"""Networks by a config, as they are trained and as they infer."""

import logging
import os

from torch import nn
from yacs.config import CfgNode

from mhsvm.config import to_dict
from mhsvm.models import create_model, load_weights
from mhsvm.ops.dispatch import ENVIRONMENT_VARIABLE
from mhsvm.runtime.graphs import GraphedModel

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
    model = create_model(
        node.name,
        num_classes=node.num_classes,
        in_channels=node.in_channels,
        backend=choose_backend(config, backend),
        **node.get(node.name, {}),
    )
    if node.weights:
        log.info("weights from %s: %s", node.weights, load_weights(model, node.weights))
    return model


def build_inference(
    model: nn.Module,
    *,
    size: tuple[int, int],
    batch_size: int,
    captures: bool,
    pool: tuple[int, int] | None = None,
) -> nn.Module:
    """A model as it infers RGB images of `size` (h, w): if it `captures`, as a CUDA graph of batches, maybe in the
    memory `pool` of others."""
    return GraphedModel(model, (batch_size, 3, *size), pool=pool) if captures else model


def describe_model(config: CfgNode) -> dict:
    """Name and arguments of the network, without what only says how it is computed."""
    node = config.model
    return {
        "name": node.name,
        "num_classes": node.num_classes,
        "in_channels": node.in_channels,
        **to_dict(node.get(node.name, CfgNode())),
    }
