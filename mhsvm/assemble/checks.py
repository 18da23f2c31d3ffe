"""Checks of a new training, before anything is written or computed: all errors are raised together."""

from contextlib import ExitStack

import torch
from torch import nn
from yacs.config import CfgNode

from mhsvm.assemble.data import build_augment, build_set, build_split, with_size
from mhsvm.assemble.devices import build_device
from mhsvm.assemble.networks import build_model, check_backend_runs, check_image_size, choose_backend
from mhsvm.assemble.training import build_loss, build_optimizer, build_schedule, check_data, check_settings
from mhsvm.data.split_file import Split
from mhsvm.errors import Errors
from mhsvm.prepare.sets import find_set
from mhsvm.store import PreparedSet


def check_training(config: CfgNode, *, num_processes: int = 1) -> tuple[CfgNode, Split, str]:
    """Check everything that a new training needs.

    A folder of images is prepared, and near-duplicates for a k-fold split are searched, only if nothing else is wrong.

    Returns:
        The config with the size of its set, the split of the set, and the checksum of the set.
    Raises:
        FileNotFoundError: There is no such set or checkpoint, and nothing else is wrong.
        ValueError: Something is wrong; several errors are listed.
    """
    errors = Errors()
    _check_config(config, errors, num_processes)
    model = None
    with errors.collected():
        model = build_model(config)
    _check_rates(config, model, errors)
    with ExitStack() as stack:
        prepared = _open_set(config, stack, errors)
        if prepared is not None:
            with errors.collected():
                config = with_size(config, prepared)
        if prepared is not None and model is not None:
            with errors.collected():
                check_image_size(model, config, prepared)
        if prepared is not None and not (errors and config.data.split.startswith("kfold")):
            with errors.collected():
                split = build_split(config.data.split, prepared)
                check_data(config, split, prepared)
        errors.raise_if_any("reasons why this training cannot start")
        assert prepared is not None, "without a set there is an error"
        return config, split, prepared.checksum


def _check_config(config: CfgNode, errors: Errors, num_processes: int) -> None:
    device = None
    with errors.collected():
        device = build_device(config.run.device)
    with errors.collected():
        check_backend_runs(choose_backend(config), torch.device("cpu") if device is None else device)
    for message in check_settings(config, device, num_processes=num_processes):
        errors.add(ValueError(message))
    with errors.collected():
        build_augment(config, training=True)
    with errors.collected():
        build_loss(config)


def _check_rates(config: CfgNode, model: nn.Module | None, errors: Errors) -> None:
    """Check the optimizer and the schedule; without a network, on a parameter of their own."""
    optimizer = None
    with errors.collected():
        optimizer = build_optimizer(config, model or nn.Linear(1, 1))
    if optimizer is None:
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1e-3)
    with errors.collected():
        build_schedule(config, optimizer)


def _open_set(config: CfgNode, stack: ExitStack, errors: Errors) -> PreparedSet | None:
    with errors.collected():
        if errors and find_set(config.data.set).is_dir():
            # preparing a folder takes long, and the start will be repeated
            return None
        return stack.enter_context(build_set(config))
    return None
