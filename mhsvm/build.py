"""Puts objects together by a config; the only reader of one."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from mhsvm import losses
from mhsvm.config import config_from_dict, to_dict
from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset, load_dataset
from mhsvm.data.duplicate_file import duplicate_groups
from mhsvm.data.leakage import Leakage, find_leakage
from mhsvm.data.loader import choose_placement
from mhsvm.data.sets import find_set, open_set
from mhsvm.data.split_file import Split
from mhsvm.data.splits import make_split
from mhsvm.data.store import PreparedSet
from mhsvm.engine import optim
from mhsvm.engine.checkpoint import FORMAT, code_version
from mhsvm.engine.distributed import ALONE, World
from mhsvm.engine.ema import ModelAverage
from mhsvm.engine.graphs import GraphedModel
from mhsvm.engine.predictor import Predictor
from mhsvm.engine.step import TrainStep
from mhsvm.engine.tester import EvaluationJob
from mhsvm.engine.trainer import Job
from mhsvm.models import create_model, load_weights
from mhsvm.models.checkpoint_file import read_checkpoint, weights_in
from mhsvm.models.recognition import Layout, identify, recognise
from mhsvm.ops.backends import ENVIRONMENT_VARIABLE

log = logging.getLogger(__name__)

# Published MHS-VM files do not hold their gate's threshold; their authors test with this one.
PUBLISHED_GATE_THRESHOLD = 0.4
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Trained:
    """A model with its weights, and what is known of how it was trained.

    Attributes:
        path: The checkpoint.
        model: In evaluation mode, on its device.
        config: The recorded one; of a published file, the defaults with the model that its keys tell.
        published: The file records nothing but weights, as those of the original projects do.
        data: What our checkpoints record of the set: name, checksum, split, its hash and ids; else None.
        notes: What was assumed, in sentences for the user.
    """

    path: Path
    model: nn.Module
    config: CfgNode
    published: bool
    data: dict | None
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels that it was trained at; of a published file, the default."""
        h, w = self.data["size"] if self.data else (self.config.data.size, self.config.data.size)
        return h, w

    @property
    def num_classes(self) -> int:
        """1 for lesion or not, else the number of classes that it tells apart."""
        return self.config.model.num_classes

    @property
    def batch_size(self) -> int:
        """Images at a time, as its config evaluates."""
        return self.config.evaluation.batch_size


def build_device(name: str) -> torch.device:
    """ "auto" is the GPU if there is one.

    Raises:
        ValueError: The device is unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def build_own_device(name: str, world: World) -> torch.device:
    """The device of one process of a training: of several processes, each gets a GPU of its machine.

    Raises:
        ValueError: The device is unknown or not there, names one GPU for several processes, or there are too few.
    """
    device = build_device(name)
    if world.size == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise ValueError(f"run.device {name} is one GPU, and this training has {world.size} processes: set it to auto")
    if world.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"this machine has {torch.cuda.device_count()} GPUs, too few for process {world.local_rank + 1} on it: "
            "start one process for each GPU (--nproc_per_node=gpu), or set run.device cpu"
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


def build_model(config: CfgNode, *, backend: str | None = None) -> nn.Module:
    """The network of `config.model`, with fresh weights or those of `config.model.weights`.

    Its scans run on `backend` if it is given (a command's option), else on what the environment variable
    MHSVM_BACKEND names, else on `config.model.backend`.
    """
    node = config.model
    # "auto" is what lets the scan itself ask the environment, and name it when it is wrong
    backend = backend or ("auto" if os.environ.get(ENVIRONMENT_VARIABLE) else node.backend)
    model = create_model(
        node.name,
        num_classes=node.num_classes,
        in_channels=node.in_channels,
        backend=backend,
        **node.get(node.name, {}),
    )
    if node.weights:
        log.info("weights from %s: %s", node.weights, load_weights(model, node.weights))
    return model


def build_loss(config: CfgNode) -> nn.Module:
    """The loss of `config.loss`.

    Raises:
        ValueError: It is unknown, or for another number of classes.
    """
    name, several = config.loss.name, config.model.num_classes > 1
    loss = losses.create_loss(name, **config.loss.get(name, {}))
    if loss.several_classes != several:
        fitting = "ce_dice" if several else "bce_dice"
        raise ValueError(f"loss {name!r} does not fit model.num_classes {config.model.num_classes}: take {fitting!r}")
    return loss


def build_augment(config: CfgNode, *, training: bool) -> Augment:
    """Normalisation, with the random motions of `config.data` for training."""
    return Augment(
        normalization=config.data.normalization,
        augmentation=config.data.augmentation if training else "none",
        num_classes=config.model.num_classes,
        soft_targets=config.data.soft_targets,
    )


def build_optimizer(config: CfgNode, model: nn.Module) -> Optimizer:
    """The optimiser of `config.optimizer`."""
    node = config.optimizer
    return optim.create_optimizer(node.name, model, decay_all=node.decay_all, **node.get(node.name, {}))


def build_schedule(config: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule of `config.schedule`."""
    node = config.schedule
    return optim.create_schedule(node.name, optimizer, **node.get(node.name, {}))


def build_set(config: CfgNode) -> PreparedSet:
    """Open the set of `config.data`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It cannot be used, or has another number of classes than the model.
    """
    prepared = open_set(find_set(config.data.set), size=config.data.size, num_classes=config.model.num_classes)
    if prepared.num_classes != config.model.num_classes:
        raise ValueError(
            f"{prepared.path} has masks of {prepared.num_classes} classes and model.num_classes is "
            f"{config.model.num_classes}: set model.num_classes {prepared.num_classes}"
        )
    return prepared


def build_split(name: str, prepared: PreparedSet) -> Split:
    """The split `name` of a set; for k-fold its near-duplicates count as groups."""
    groups = duplicate_groups(prepared) if name.startswith("kfold") else prepared.groups
    return make_split(name, ids=prepared.ids, subsets=prepared.subsets, groups=groups, dataset=prepared.name)


def build_job(config: CfgNode, prepared: PreparedSet, split: Split, world: World = ALONE) -> Job:
    """Everything that a training needs, seeded by `config.run.seed`; in one of several processes, its part of it.

    Raises:
        ValueError: The split has no training or no validation part, or parts of the config do not fit.
    """
    if config.train.precision not in _PRECISIONS:
        raise ValueError(f"train.precision is one of {', '.join(_PRECISIONS)}, not {config.train.precision!r}")
    for part in ("train", "val"):
        if not split.ids(part):
            raise ValueError(f"split {split.name!r} of {prepared.path} has no {part} part; choose another data.split")
    if config.train.batch_size < world.size:
        raise ValueError(
            f"train.batch_size is that of all {world.size} processes together, and {config.train.batch_size} is less "
            f"than one image each: set train.batch_size {world.size} or more, or start fewer processes"
        )
    device = build_own_device(config.run.device, world)
    torch.manual_seed(config.run.seed)
    model = build_model(config).to(device)
    if not world.is_first:
        # the weights are the same in all processes; what drops out is not
        torch.manual_seed(config.run.seed + world.rank)
    optimizer = build_optimizer(config, model)
    loss, augment = build_loss(config).to(device), build_augment(config, training=True)
    step = build_step(config, model, optimizer, loss=loss, augment=augment, world=world)
    train_set, val_set = (load_dataset(prepared, split.ids(part)) for part in ("train", "val"))
    placement = choose_placement(train_set.num_bytes + val_set.num_bytes, device, config.data.placement)
    return Job(
        model=model,
        optimizer=optimizer,
        schedule=build_schedule(config, optimizer),
        loss=loss,
        step=step,
        infer=build_inference(
            model if step.average is None else step.average.model,
            size=prepared.size,
            batch_size=config.evaluation.batch_size,
            captures=step.captures,
        ),
        train_set=train_set.to(placement.device),
        val_set=val_set.to(placement.device),
        augment=augment,
        val_augment=build_augment(config, training=False),
        generator=torch.Generator().manual_seed(config.run.seed),
        device=device,
        description={
            "config": to_dict(config),
            "data": describe_data(prepared, split),
            "version": code_version(),
        },
        epochs=config.train.epochs,
        batch_size=config.train.batch_size,
        accumulation=config.train.accumulation,
        eval_batch_size=config.evaluation.batch_size,
        threshold=config.evaluation.threshold,
        tf32=config.train.tf32,
        deterministic=config.train.deterministic,
        notes=(
            f"images: {placement.reason}",
            f"steps: {step.describe()}",
            *([f"{world.size} processes share each batch"] if world.size > 1 else []),
        ),
        world=world,
    )


def build_step(
    config: CfgNode,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    loss: nn.Module,
    augment: Augment,
    world: World = ALONE,
) -> TrainStep:
    """The training step of `config.train`, on batches as they leave a data set, with their motions."""
    node = config.train
    return TrainStep(
        model,
        optimizer,
        loss,
        prepare=augment,
        mode=node.step,
        clip_norm=node.clip_norm,
        precision=_PRECISIONS[node.precision],
        average=ModelAverage(model, decay=node.ema_decay) if node.ema_decay > 0 else None,
        sum_up=world.sum if world.size > 1 else None,
    )


def build_inference(model: nn.Module, *, size: tuple[int, int], batch_size: int, captures: bool) -> nn.Module:
    """A model as it infers RGB images of `size` (h, w): if it `captures`, as a CUDA graph of batches."""
    return GraphedModel(model, (batch_size, 3, *size)) if captures else model


def build_test_set(trained: Trained, name_or_path: str) -> PreparedSet:
    """Open a set to test a checkpoint on; a folder that is used directly is prepared at the checkpoint's size.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It cannot be used, or has another number of classes than the model.
    """
    prepared = open_set(find_set(name_or_path), size=trained.size, num_classes=trained.num_classes)
    if prepared.num_classes != trained.num_classes:
        raise ValueError(
            f"the masks of {prepared.path} have num_classes {prepared.num_classes} and the network of {trained.path} "
            f"has {trained.num_classes}: test it on a set with the classes that it was trained on"
        )
    return prepared


def build_leakage(trained: Trained, prepared: PreparedSet, test_ids: Sequence[str]) -> Leakage:
    """What a checkpoint has seen of test images, see `mhsvm.data.leakage`."""
    return find_leakage(prepared, test_ids, recorded=trained.data, open_training_set=lambda: build_set(trained.config))


def build_evaluation(
    trained: Trained, dataset: Dataset, *, batch_size: int | None, device: torch.device
) -> EvaluationJob:
    """Everything that testing a checkpoint needs; `batch_size` None takes that of its config."""
    config, batch_size = trained.config, batch_size or trained.batch_size
    h, w = dataset.images.shape[1:3]
    return EvaluationJob(
        model=build_inference(trained.model, size=(h, w), batch_size=batch_size, captures=device.type == "cuda"),
        dataset=dataset,
        augment=build_augment(config, training=False),
        loss=build_loss(config).to(device),
        threshold=config.evaluation.threshold,
        batch_size=batch_size,
        device=device,
    )


def describe_model(config: CfgNode) -> dict:
    """Name and arguments of the network, without what only says how it is computed."""
    node = config.model
    return {
        "name": node.name,
        "num_classes": node.num_classes,
        "in_channels": node.in_channels,
        **to_dict(node.get(node.name, CfgNode())),
    }


def describe_data(prepared: PreparedSet, split: Split) -> dict:
    """What a checkpoint records of its data."""
    return {
        "name": prepared.name,
        "checksum": prepared.checksum,
        "size": list(prepared.size),
        "split": split.name,
        "split_hash": split.hash,
        **{f"{part}_ids": list(split.ids(part)) for part in ("train", "val", "test")},
    }


def load_trained(
    path: str | Path,
    *,
    model_name: str | None = None,
    gate_threshold: float | None = None,
    backend: str | None = None,
    device: torch.device,
) -> Trained:
    """Build the model of a checkpoint, ours or a published one, and load its weights.

    Args:
        path: The checkpoint.
        model_name: Overrides the model that the file tells.
        gate_threshold: Overrides the threshold of MHS-VM's gate.
        backend: Overrides the scan's backend, see `build_model`.
        device: Where the model goes.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, its weights do not fit the model, or there is no gate to set.
    """
    content = read_checkpoint(path)
    ours = content.get("format") == FORMAT
    settings = content["config"] if ours else _published_settings(content, model_name)
    config, notes = config_from_dict(settings), []
    config.defrost()
    if model_name is not None:
        config.model.name = model_name
    if not ours:
        notes.append(
            f"the file does not record its preprocessing: taking images of {config.data.size} x {config.data.size}, "
            f"{config.data.normalization} normalisation and threshold {config.evaluation.threshold}"
        )
    if config.model.name == "mhs_vm" and not ours and gate_threshold is None:
        gate_threshold = PUBLISHED_GATE_THRESHOLD
        notes.append(f"the file does not hold its gate threshold: taking its authors' {gate_threshold}")
    if gate_threshold is not None:
        _set_gate_threshold(config, gate_threshold)
    config.model.weights = ""
    config.freeze()
    model = build_model(config, backend=backend)
    load_weights(model, content)
    return Trained(
        path=Path(path),
        model=model.to(device).eval(),
        config=config,
        published=not ours,
        data=content.get("data") if ours else None,
        notes=tuple(notes),
    )


def load_predictor(
    path: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    threshold: float | None = None,
    augmentation: str = "none",
    largest_component: bool = False,
    fill_holes: bool = False,
) -> Predictor:
    """A function from an image to its mask, from a checkpoint or from several whose probabilities are averaged.

    Args:
        path: Our checkpoint or a published one, or a list of them.
        device: "auto", "cpu", "cuda", …
        threshold: Probability from which a pixel is lesion; None takes the checkpoint's.
        augmentation: "none", or "flips" or "turns" to average over mirrored and turned views.
        largest_component: Keep the largest region of each class.
        fill_holes: Fill the background that a region encloses.
    Returns:
        A callable, see `mhsvm.engine.predictor.Predictor`.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is no checkpoint, several do not go together, or the device is not there.
    """
    chosen = build_device(device)
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    return build_predictor(
        [load_trained(each, device=chosen) for each in paths],
        chosen,
        threshold=threshold,
        augmentation=augmentation,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )


def build_predictor(
    members: Sequence[Trained],
    device: torch.device,
    *,
    batch_size: int = 1,
    threshold: float | None = None,
    augmentation: str = "none",
    largest_component: bool = False,
    fill_holes: bool = False,
) -> Predictor:
    """The predictor of loaded models: size, normalisation and threshold are those that they were trained with.

    On a GPU the models run as CUDA graphs of `batch_size` images; any number is predicted, batch by batch.

    Raises:
        ValueError: There is none, they do not go together, or the threshold lies outside 0..1.
    """
    if not members:
        raise ValueError("a predictor needs at least one checkpoint; received none")
    for what, values in (
        ("image sizes", [trained.size for trained in members]),
        ("normalisations", [trained.config.data.normalization for trained in members]),
        ("numbers of classes", [trained.num_classes for trained in members]),
    ):
        _check_equal(what, members, values)
    if threshold is None:
        thresholds = [trained.config.evaluation.threshold for trained in members]
        _check_equal("thresholds", members, thresholds, way_out=" or give a threshold for all")
        threshold = thresholds[0]
    if not 0 <= threshold <= 1:
        raise ValueError(f"the threshold is a probability, 0 to 1; received {threshold}")
    size, captures = members[0].size, device.type == "cuda"
    return Predictor(
        [build_inference(trained.model, size=size, batch_size=batch_size, captures=captures) for trained in members],
        normalize=build_augment(members[0].config, training=False).normalize,
        size=size,
        threshold=threshold,
        device=device,
        augmentation=augmentation,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )


def _check_equal(what: str, members: Sequence[Trained], values: Sequence[object], *, way_out: str = "") -> None:
    for trained, value in zip(members, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"checkpoints that are averaged have equal {what}; received {members[0].path} with {values[0]} and "
                f"{trained.path} with {value}. Predict with each alone{way_out}"
            )


def _published_settings(content: Mapping, model_name: str | None) -> dict:
    layout = identify(weights_in(content))
    if model_name is not None and (layout is None or layout[1] is Layout.OURS):
        # a state dict without its config shows no arguments: the defaults, which strict loading holds it to
        return {"model": {"name": model_name}}
    name, arguments = recognise(content)
    if model_name is not None and model_name != name:
        raise ValueError(f"the file holds the weights of {name}, not of {model_name}")
    shared = {key: arguments.pop(key) for key in ("num_classes", "in_channels") if key in arguments}
    loss = "bce_dice" if shared.get("num_classes", 1) == 1 else "ce_dice"
    return {"model": {"name": name, **shared, name: arguments}, "loss": {"name": loss}}


def _set_gate_threshold(config: CfgNode, gate_threshold: float) -> None:
    node = config.model.mhs_vm
    if config.model.name != "mhs_vm" or node.gate == "none":
        raise ValueError(f"{config.model.name} has no gate: leave --gate-threshold out")
    if node.gate_learnable:
        raise ValueError("the gate's thresholds of this checkpoint are learnt: leave --gate-threshold out")
    node.gate_threshold = gate_threshold
