"""Trainings by a config: loss, optimizer, schedule, step, and the job that holds them."""

import inspect
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from mhsvm import losses
from mhsvm.assemble.data import build_augment, describe_data, describe_set
from mhsvm.assemble.devices import build_own_device
from mhsvm.assemble.networks import build_inference, build_model, check_image_size, choose_backend
from mhsvm.config import to_dict
from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset, load_dataset
from mhsvm.data.loader import PLACEMENTS, choose_placement
from mhsvm.data.mask_choice import check_mask_choice
from mhsvm.data.split_file import Split
from mhsvm.data.splits import suggest_split
from mhsvm.nearest import did_you_mean
from mhsvm.plugins import import_plugins
from mhsvm.runtime.distributed import ALONE, World
from mhsvm.store import PreparedSet, Ratings
from mhsvm.system import code_version
from mhsvm.training.ema import ModelAverage
from mhsvm.training.job import Job
from mhsvm.training.optimizers import create_optimizer
from mhsvm.training.schedules import create_schedule
from mhsvm.training.step import STEP_MODES, TrainStep

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_loss(config: CfgNode, *, backend: str | None = None) -> nn.Module:
    """The loss of `config.loss`.

    Raises:
        ValueError: It is unknown, or for another number of classes.
    """
    name, several = config.loss.name, config.model.num_classes > 1
    arguments = dict(config.loss.get(name, {}))
    if "backend" in inspect.signature(losses.LOSSES[name]).parameters:
        arguments["backend"] = choose_backend(config, backend)
    loss = losses.create_loss(name, **arguments)
    if getattr(loss, "several_classes", several) != several:
        fitting = "ce_dice" if several else "bce_dice"
        raise ValueError(f"loss {name!r} does not fit model.num_classes {config.model.num_classes}: take {fitting!r}")
    return loss


def build_optimizer(config: CfgNode, model: nn.Module) -> Optimizer:
    """The optimizer of `config.optimizer`."""
    node = config.optimizer
    return create_optimizer(node.name, model, decay_all=node.decay_all, **node.get(node.name, {}))


def build_schedule(config: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule of `config.schedule`."""
    node = config.schedule
    return create_schedule(node.name, optimizer, **node.get(node.name, {}))


def build_step(
    config: CfgNode,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    loss: nn.Module,
    augment: Augment,
    world: World = ALONE,
) -> TrainStep:
    """The training step of `config.train`, on batches of a data set with their augmentation parameters."""
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


def build_job(config: CfgNode, prepared: PreparedSet, split: Split, world: World = ALONE) -> Job:
    """Build all objects of a training, seeded by `config.run.seed`, for this process of `world`.

    Raises:
        ValueError: The split has no training or no validation part, or parts of the config do not fit.
    """
    # only the first process has read the config, and checked the plugins of a recorded one
    import_plugins(config.run.plugins)
    for message in check_settings(config, None, num_processes=world.size):
        raise ValueError(message)
    check_data(config, split, prepared)
    device = build_own_device(config.run.device, world)
    torch.manual_seed(config.run.seed)
    model = build_model(config).to(device)
    check_image_size(model, config, prepared)
    if not world.is_first:
        # the weights are the same in all processes; dropout is not
        torch.manual_seed(config.run.seed + world.rank)
    optimizer = build_optimizer(config, model)
    loss, augment = build_loss(config).to(device), build_augment(config, training=True)
    step = build_step(config, model, optimizer, loss=loss, augment=augment, world=world)
    mask = config.data.mask
    train_set = load_dataset(prepared, split.ids("train"), mask=mask)
    # validation takes the same masks in each epoch, so that its losses can be compared
    val_set = load_dataset(prepared, split.ids("val"), mask="majority" if mask == "random" else mask)
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
            pool=step.pool,
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
            describe_set(prepared),
            f"images: {placement.reason}",
            *([] if prepared.ratings is None else [_describe_mask(mask, prepared.ratings)]),
            f"steps: {step.describe()}",
            *([f"{world.size} processes share each batch"] if world.size > 1 else []),
        ),
        warnings=(
            *(
                ["the images are synthetic: their metrics say nothing about real lesions"]
                if prepared.is_synthetic
                else []
            ),
            *_absence_warnings(train_set, val_set),
        ),
        world=world,
    )


def _absence_warnings(train_set: Dataset, val_set: Dataset) -> tuple[str, ...]:
    """Classes that no mask of a part holds: they are not learned, or the validation says nothing of them."""
    lines = []
    for part, dataset, effect in (
        ("training", train_set, "it cannot be learned"),
        ("validation", val_set, "val_miou and val_dsc are means over the other classes"),
    ):
        absent = dataset.absent_classes
        if dataset.num_classes == 1:
            effect = effect if part == "training" else "val_miou and val_dsc are 1 without a prediction, else 0"
            lines += [f"no mask of the {part} part shows a lesion: {effect}"] if absent else []
        elif absent:
            named = f"class {absent[0]}" if len(absent) == 1 else f"classes {', '.join(map(str, absent))}"
            lines.append(f"no mask of the {part} part holds {named}: {effect}")
    return tuple(lines)


def check_settings(config: CfgNode, device: torch.device | None, *, num_processes: int) -> Iterator[str]:
    """Yield a message for each setting that is no choice, or does not fit another one.

    Args:
        config: The settings.
        device: The device of the training; None if it is not known.
        num_processes: Processes that train together.
    """
    node = config.train
    for key, value, known in (
        ("train.precision", node.precision, tuple(_PRECISIONS)),
        ("train.step", node.step, STEP_MODES),
        ("data.placement", config.data.placement, PLACEMENTS),
    ):
        if value not in known:
            yield f"{key} is one of {', '.join(known)}, not {value!r}{did_you_mean(value, known)}"
    if node.step == "graph" and device is not None and device.type != "cuda":
        yield f"train.step graph needs a GPU, and this training runs on {device}: take auto"
    if node.batch_size < num_processes:
        yield (
            f"train.batch_size is that of all {num_processes} processes together, and {node.batch_size} is less than "
            f"one image each: set train.batch_size {num_processes} or more, or start fewer processes"
        )
    weights = {key: value for key, value in config.loss.get(config.loss.name, {}).items() if key.endswith("_weight")}
    if weights and not any(weights.values()):
        keys = " and ".join(f"loss.{config.loss.name}.{key}" for key in weights)
        yield f"{keys} are 0, so that nothing is trained: make one of them positive"


def _describe_mask(mask: str, ratings: Ratings) -> str:
    shown = "a random one of each image, another for each epoch; validation on their majority"
    return f"masks of {len(ratings.raters)} raters: {shown if mask == 'random' else mask}"


def check_data(config: CfgNode, split: Split, prepared: PreparedSet) -> None:
    """Raise ValueError if a split has no training or no validation part, or images lack the mask to train on."""
    for part in ("train", "val"):
        if not split.ids(part):
            raise ValueError(
                f"split {split.name!r} of {prepared.path} has no {part} part; choose another data.split: "
                f"{suggest_split(prepared.groups, training=True, subsets=prepared.subsets)}"
            )
    check_mask_choice(prepared, config.data.mask, [*split.ids("train"), *split.ids("val")])
