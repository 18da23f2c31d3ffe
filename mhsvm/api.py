"""Training, evaluation and prediction as functions, for programs and notebooks; the commands use the same parts.

run = mhsvm.train({"data.set": "isic2017", "train.epochs": 50})
result = mhsvm.evaluate(run, "ph2")
print(result.metrics["dsc"], result.intervals["dsc"])
mask, probability = mhsvm.predict("lesion.jpg", run)
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import nn
from yacs.config import CfgNode

from mhsvm.assemble import (
    Plan,
    Trained,
    TrainedPredictor,
    build_device,
    build_test,
    build_test_set,
    load_predictor,
    load_trained,
    open_native,
    open_plan,
    plan_resumed,
    plan_run,
)
from mhsvm.assemble import read_config as load_config
from mhsvm.config import dotted
from mhsvm.data.augment import NORMALIZATIONS
from mhsvm.evaluation.folder import write_result
from mhsvm.evaluation.testing import TestResult, evaluate_test
from mhsvm.export.program import record_program
from mhsvm.files import StrPath
from mhsvm.finished_run import Run, finished_run
from mhsvm.folder_lock import FolderLock
from mhsvm.inference import overlay
from mhsvm.inference.predictor import ImageLike, Prediction, Predictor, read_rgb
from mhsvm.plugins import import_plugins
from mhsvm.prepare.resize import as_height_width
from mhsvm.runtime.distributed import open_world
from mhsvm.store import PreparedSet
from mhsvm.training.record import MemoryRecord
from mhsvm.training.run_folder import RunFolder
from mhsvm.training.trainer import train as run_training

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = [
    "Prediction",
    "Predictor",
    "Run",
    "TestResult",
    "draw_prediction",
    "evaluate",
    "export_program",
    "load_config",
    "load_predictor",
    "predict",
    "train",
    "write_result",
]

Config: TypeAlias = CfgNode | StrPath | Mapping[str, Any]


def train(
    config: Config | None = None,
    *,
    folder: StrPath | None = None,
    resume: StrPath | None = None,
    progress: bool = False,
) -> Run:
    """Train a network, with or without a run folder.

    Only two caches are written unasked: a folder of images is prepared once into a file, and a k-fold split keeps the
    near-duplicates of its set. Both are beside the images, or in the user's cache if their folder is read-only.

    In processes that torchrun has started, all of them train one network together.

    Args:
        config: A config, the path of a YAML file, or a dictionary of the settings that differ from the defaults, nested
            or with dotted keys. With `resume` only such a dictionary: `{"train.epochs": 400}` extends the run.
        folder: The run folder to make, as `mhsvm train` makes it, without its log file; None keeps the run in memory.
        resume: A run folder to go on with, instead of a whole `config` and `folder`.
        progress: Show a progress bar in a terminal.
    Returns:
        The run, with the weights of its best epoch and the metrics of every epoch.
    Raises:
        ValueError: A setting is wrong, or settings do not fit together.
        FileNotFoundError: There is no such config, set or run.
        FileExistsError: The folder exists.
        mhsvm.training.errors.TrainingError: A loss or gradient is not finite, or memory does not suffice.
    """
    if (config is None) == (resume is None) and not (config and isinstance(config, Mapping)):
        raise ValueError("train takes either `config` or `resume`, or with `resume` a dictionary of settings")
    if resume is not None and isinstance(config, CfgNode):
        raise ValueError("a run is resumed with its own config: give only the settings to change, as a dictionary")
    if resume is not None and folder is not None:
        raise ValueError("a run is resumed in its own folder: leave `folder` out")
    with open_world() as world, FolderLock("a training") as lock:
        plan = world.from_first(lambda: _plan(config, folder, resume, world.size, lock))
        job, position = open_plan(plan, world)
        world.from_first(lambda: plan.create_folder(lock))
        record = MemoryRecord() if plan.run is None else plan.run
        run_training(job, position, record, show_bar=progress)
    return finished_run(plan, job, position.history, record)


def evaluate(
    trained: Run | Predictor | StrPath,
    data: PreparedSet | StrPath,
    *,
    split: str | None = None,
    drop_seen: bool = False,
    native_masks: Sequence[StrPath] | None = None,
    boundary: bool = True,
    metric_settings: Sequence[str] = (),
    gate_maps: Sequence[str] = (),
    predictions: StrPath | None = None,
    plugins: Sequence[str] = (),
    batch_size: int | None = None,
    device: str = "auto",
    progress: bool = False,
) -> TestResult:
    """Measure a trained network on the test images of a set.

    Nothing is written except `predictions`, if given, and caches next to the set: the prepared file of a folder of
    images, and the near-duplicates of the test images, which are searched once.

    Args:
        trained: A run, a checkpoint (ours or a published one), a name from `mhsvm.list_pretrained()`, or a predictor
            from `mhsvm.load_predictor` that does not clean its masks.
        data: A name in data/, a prepared file, a folder of images and masks, or an open prepared set.
        split: Name of a split whose part "test" is measured; by default the checkpoint's own on its own set, and every
            image on any other set.
        drop_seen: Leave out test images that training has seen, near-duplicates too.
        native_masks: Folders or zip files of the masks at the images' own sizes: measure there too.
        boundary: Measure the boundaries (hd95, assd, nsd, boundary_iou), which takes longest.
        metric_settings: Such as "nsd.tolerance=3", see `mhsvm.metrics.metric_arguments`.
        gate_maps: Ids of test images whose gates are kept, for MHS-VM.
        predictions: HDF5 file for the probabilities; by default they are kept compressed in memory.
        plugins: Modules of your own to import first: metrics, and those that a checkpoint names. A checkpoint imports
            none by itself.
        batch_size: Images per batch; by default that of the config.
        device: "auto" (the GPU if there is one), "cpu", "cuda", …; a run or predictor stays on its own device.
        progress: Show a progress bar in a terminal.
    Returns:
        Ids, scores per image, metrics with intervals, protocol, leakage, and the probabilities.
    Raises:
        FileNotFoundError: There is no such checkpoint or set.
        ValueError: The split has no test part, the number of classes differs, or the network's output is not finite.
    """
    import_plugins(plugins)
    tested = _trained(trained, device)
    own_device = next(tested.model.parameters()).device
    with nullcontext(data) if isinstance(data, PreparedSet) else build_test_set(tested, data) as prepared:
        run = build_test(
            tested,
            prepared,
            split=split,
            drop_seen=drop_seen,
            batch_size=batch_size,
            device=own_device,
            native_masks=native_masks,
            gate_maps=gate_maps,
            predictor=trained if isinstance(trained, TrainedPredictor) else None,
        )
        with open_native(run, native_masks) as native:
            return evaluate_test(
                run,
                boundary=boundary,
                metric_settings=metric_settings,
                native=native,
                gate_maps=gate_maps,
                predictions=None if predictions is None else Path(predictions),
                progress=progress,
            )


def predict(
    images: ImageLike | Sequence[ImageLike],
    trained: Run | Predictor | StrPath | Sequence[StrPath],
    *,
    plugins: Sequence[str] = (),
    batch_size: int = 8,
    device: str = "auto",
) -> Prediction | list[Prediction]:
    """Segment one image or several of any sizes.

    Args:
        images: A path, a PIL image, or uint8 (h, w, 3) RGB or (h, w); or a list of these.
        trained: A run, a checkpoint, a name from `mhsvm.list_pretrained()`, a model in ONNX, several of them, whose
            probabilities are averaged, or a predictor. To predict often, load one once with `mhsvm.load_predictor`.
        plugins: Modules of your own to import first, such as those that a checkpoint names; it imports none by itself.
        batch_size: Images per batch.
        device: "auto" (the GPU if there is one), "cpu", "cuda", …; a run or predictor stays on its own device.
    Returns:
        (mask, probability) of the image at its own size: uint8 (h, w) and float32 (h, w), or (k, h, w) for k classes;
        for a list of images, a list of such pairs.
    Raises:
        FileNotFoundError: There is no such image or checkpoint.
        ValueError: An image cannot be read, or checkpoints do not fit together.
    """
    import_plugins(plugins)
    if isinstance(images, str) or not isinstance(images, Sequence):
        return _predictor(trained, device, batch_size=1)(images)
    predictor = _predictor(trained, device, batch_size=batch_size)
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    return [prediction for batch in batches for prediction in predictor.predict_batch(batch)]


def draw_prediction(image: ImageLike, mask: np.ndarray, *, num_classes: int = 1) -> np.ndarray:
    """Draw a predicted mask over its image: the boundary of a lesion, or the region of each class.

    Args:
        image: As for `predict`.
        mask: uint8 (h, w) at the size of the image: 1 is lesion, or class indices.
        num_classes: 1, or k.
    Returns:
        uint8 (h, w, 3), RGB.
    Raises:
        FileNotFoundError: There is no such image.
        ValueError: The image cannot be read, or the mask has another size.
    """
    pixels = read_rgb(image)
    if mask.shape != pixels.shape[:2]:
        raise ValueError(
            f"a mask has the size of its image; received a mask {mask.shape} for an image {pixels.shape[:2]}. "
            "Masks of `predict` have it"
        )
    return overlay.draw_prediction(pixels, mask, num_classes=num_classes)


def export_program(
    trained: nn.Module | Run | TrainedPredictor | StrPath,
    *,
    size: int | tuple[int, int] | None = None,
    image: str = "uint8",
    output: str = "probability",
    batch: int | None = None,
    normalization: str | None = None,
    plugins: Sequence[str] = (),
) -> "ExportedProgram":
    """Record a network as a program of plain operations, which other runtimes read: see docs/how-to/export-program.md.

    The program has no operator of this package, and calls of it take any number of images. It is run once and compared
    with the network. torch saves and loads it by `torch.export.save` and `torch.export.load`, without this package.

    Args:
        trained: A network of `mhsvm.create_model`, a run, a checkpoint, a name from `mhsvm.list_pretrained()`, or a
            predictor of one checkpoint.
        size: (h, w) of the images in pixels, or one number for squares; by default that of the training images. A bare
            network has no default.
        image: "uint8": RGB (b, h, w, 3), 0..255; "float32": RGB (b, 3, h, w), 0..255; or "normalized": the network's
            own input (b, in_channels, h, w).
        output: "probability": (b, 1, h, w) of lesion, or (b, k, h, w) of each class; or "logits".
        batch: Number of images of a call, for runtimes that take only fixed shapes; None for any number.
        normalization: A name from `mhsvm.data.augment.list_normalizations()`; by default the checkpoint's. A bare
            network has no default; for "normalized" images there is none.
        plugins: Modules of your own to import first, such as those that a checkpoint names.
    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: A choice is unknown or missing, the size does not fit the network, or the network cannot be
            recorded: it has hooks, or a layer of your own with operators that torch lacks.
    """
    import_plugins(plugins)
    if isinstance(trained, nn.Module):
        network = trained
    else:
        known = _trained(trained, "cpu")
        network, size = known.model, known.size if size is None else size
        normalization = normalization or known.config.data.normalization
    if size is None:
        raise ValueError("a bare network does not know the size of its images: give `size`, such as 256")
    if normalization is None and image != "normalized":
        raise ValueError(
            "a bare network does not know its normalization: give `normalization`, such as 'minmax', or record its own "
            "input by image='normalized'"
        )
    normalize = None if normalization is None else NORMALIZATIONS[normalization]
    return record_program(
        network, size=as_height_width(size), normalize=normalize, image=image, output=output, batch=batch
    )


def _plan(
    config: Config | None, folder: StrPath | None, resume: StrPath | None, num_processes: int, lock: FolderLock
) -> Plan:
    if resume is not None:
        settings = config if isinstance(config, Mapping) else {}
        resumed = RunFolder(resume)
        if resumed.last.is_file() or resumed.is_unsaved_start():
            lock.hold(resume)
        return plan_resumed(resume, [word for pair in dotted(settings) for word in pair], num_processes=num_processes)
    run = None if folder is None else RunFolder(folder)
    if run is not None:
        if run.is_unsaved_start():
            lock.hold(run.path)
        run.check_new()
    return plan_run(_config(config), run, num_processes=num_processes)


def _config(config: Config | None) -> CfgNode:
    if isinstance(config, CfgNode):
        return config
    if isinstance(config, Mapping):
        return load_config(None, [word for pair in dotted(config) for word in pair])
    if not isinstance(config, (str, os.PathLike)):
        raise ValueError(
            "a config is the path of a YAML file, a dictionary of settings or a config from load_config; "
            f"received {config!r}"
        )
    return load_config(config)


def _predictor(trained: Run | Predictor | StrPath | Sequence[StrPath], device: str, *, batch_size: int) -> Predictor:
    if isinstance(trained, Predictor):
        return trained
    if isinstance(trained, Run):
        own = trained.trained
        return TrainedPredictor([own], next(own.model.parameters()).device, batch_size=batch_size)
    return load_predictor(trained, device=device, batch_size=batch_size)


def _trained(trained: Run | Predictor | StrPath, device: str) -> Trained:
    if isinstance(trained, Run):
        return trained.trained
    if isinstance(trained, TrainedPredictor):
        return trained.origin
    if isinstance(trained, Predictor):
        raise ValueError(
            "a test measures a checkpoint, and this predictor has none: if it is of a model in ONNX, evaluate the "
            "checkpoint that it was exported from"
        )
    return load_trained(trained, device=build_device(device))
