"""Tests of a trained model: the set, the test images, and the images that training has seen."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch

from mhsvm.assemble.data import build_augment, build_set, build_split, describe_set
from mhsvm.assemble.networks import build_inference, check_image_size, describe_model
from mhsvm.assemble.trained import Trained
from mhsvm.assemble.training import build_loss
from mhsvm.errors import Errors
from mhsvm.evaluation.evaluator import Evaluator
from mhsvm.evaluation.gates import check_gate_maps
from mhsvm.evaluation.protocol import Protocol, choose_protocol
from mhsvm.evaluation.test_run import TestRun
from mhsvm.files import StrPath
from mhsvm.inference.predictor import MeanLogits, Predictor
from mhsvm.leakage import find_leakage, leakage_lines
from mhsvm.prepare.class_levels import check_classes
from mhsvm.prepare.native import NativeMasks, open_native_masks
from mhsvm.prepare.pipeline import MASK_SUFFIX, MASK_THRESHOLD, MERGED_MASKS, RATERS
from mhsvm.prepare.sets import find_set, open_set
from mhsvm.store import PreparedSet

log = logging.getLogger(__name__)


def build_test_set(trained: Trained, name_or_path: StrPath) -> PreparedSet:
    """Open a set to test a checkpoint on; a folder of images is prepared at the checkpoint's size.

    Raises:
        FileNotFoundError: There is no such set.
        ValueError: It cannot be used, or its number of classes is not that of the model.
    """
    prepared = open_set(find_set(name_or_path), size=trained.size, num_classes=trained.num_classes)
    if prepared.num_classes != trained.num_classes:
        raise ValueError(
            f"the masks of {prepared.path} have num_classes {prepared.num_classes} and the network of {trained.name} "
            f"has {trained.num_classes}: test it on a set with the classes that it was trained on"
        )
    return prepared


def check_test(
    trained: Trained,
    prepared: PreparedSet,
    *,
    split: str | None = None,
    drop_seen: bool = False,
    native_masks: Sequence[StrPath] | None = None,
    gate_maps: Sequence[str] = (),
    predictor: Predictor | None = None,
) -> Protocol:
    """Check everything that a test needs, before images are compared or computed.

    Args:
        trained, prepared, split, drop_seen, predictor: See `build_test`.
        native_masks: Folders and zip files, which hold a mask of each test image.
        gate_maps: Ids of test images whose gates are wanted.
    Returns:
        The choice of the test images.
    Raises:
        ValueError: Something is wrong; several errors are listed.
    """
    errors = Errors()
    if predictor is not None:
        with errors.collected():
            _check_predictor(predictor, prepared)
    with errors.collected():
        check_classes(prepared)
    with errors.collected():
        check_image_size(trained.model, trained.config, prepared)
    protocol = None
    with errors.collected():
        protocol = choose_protocol(
            prepared, recorded=trained.data, asked=split, make_split=lambda name: build_split(name, prepared)
        )
    if protocol is not None and gate_maps:
        with errors.collected():
            check_gate_maps(trained.model, gate_maps, protocol.ids)
    if protocol is not None and native_masks is not None and not drop_seen:
        with errors.collected(), _native_masks(native_masks, prepared, protocol.ids, only_names=True):
            pass
    errors.raise_if_any("reasons why this test cannot start")
    assert protocol is not None, "without a split there is an error"
    return protocol


def build_test(
    trained: Trained,
    prepared: PreparedSet,
    *,
    split: str | None = None,
    drop_seen: bool = False,
    batch_size: int | None = None,
    device: torch.device,
    native_masks: Sequence[StrPath] | None = None,
    gate_maps: Sequence[str] = (),
    predictor: Predictor | None = None,
) -> TestRun:
    """Choose the test images of a trained model, and find those that its training has seen; the log says which.

    Args:
        trained: The model, on `device`.
        prepared: The set, open until the test is done.
        split: Name of a split whose part "test" is measured; by default see `choose_protocol`.
        drop_seen: Leave out the images that training has seen.
        batch_size: Images per batch; by default that of the model's config.
        device: The device that computes.
        native_masks, gate_maps: Checked before the search for seen images, see `check_test`.
        predictor: Its mean probability and threshold are measured instead of those of the model alone.
    Raises:
        ValueError: The split is unknown or has no test part, the images to drop are not known or no others are left,
            or the predictor cleans masks or has another size.
    """
    protocol = check_test(
        trained,
        prepared,
        split=split,
        drop_seen=drop_seen,
        native_masks=native_masks,
        gate_maps=gate_maps,
        predictor=predictor,
    )
    _log_choice(trained, prepared, protocol, device)
    leakage = find_leakage(
        prepared, protocol.ids, recorded=trained.data, open_training_set=lambda: build_set(trained.config)
    )
    for line in leakage_lines(leakage):
        log.info("%s", line)
    evaluator = build_evaluator(trained, prepared.size, batch_size=batch_size, device=device)
    if predictor is not None:
        evaluator = replace(evaluator, model=MeanLogits(predictor), threshold=predictor.threshold)
    run = TestRun(
        evaluator=evaluator,
        network=trained.model,
        model=describe_model(trained.config),
        checkpoint=trained.describe(),
        prepared=prepared,
        protocol=protocol,
        leakage=leakage,
    )
    return run.without_seen() if drop_seen else run


@contextmanager
def open_native(run: TestRun, sources: Sequence[StrPath] | None) -> Iterator[NativeMasks | None]:
    """Open the masks of a test's images at the images' own sizes; None without sources.

    Raises:
        ValueError: Masks are missing, repeated or unreadable; all of them are listed.
    """
    if sources is None:
        yield None
        return
    with _native_masks(sources, run.prepared, run.ids) as masks:
        yield masks


def _native_masks(
    sources: Sequence[StrPath], prepared: PreparedSet, ids: Sequence[str], *, only_names: bool = False
) -> AbstractContextManager[NativeMasks]:
    recorded, suffix, raters = (prepared.attributes.get(name) for name in (MASK_THRESHOLD, MASK_SUFFIX, RATERS))
    return open_native_masks(
        sources,
        ids,
        source=prepared.source,
        num_classes=prepared.num_classes,
        # masks of a set are found and read alike at each size
        threshold=None if recorded is None else float(recorded),
        mask_suffix=None if suffix is None else str(suffix),
        merge_masks=MERGED_MASKS in prepared.attributes,
        raters=None if raters is None else str(raters).split("\n") if raters else (),
        only_names=only_names,
    )


def build_evaluator(
    trained: Trained, size: tuple[int, int], *, batch_size: int | None = None, device: torch.device
) -> Evaluator:
    """The evaluator of a trained model for images of `size` (h, w); by default with the batch size of its config."""
    config, batch_size = trained.config, batch_size or trained.batch_size
    return Evaluator(
        model=build_inference(trained.model, size=size, batch_size=batch_size, captures=device.type == "cuda"),
        augment=build_augment(config, training=False, backend=trained.backend),
        loss=build_loss(config, backend=trained.backend).to(device),
        threshold=config.evaluation.threshold,
        batch_size=batch_size,
        device=device,
        tf32=config.train.tf32,
    )


def _check_predictor(predictor: Predictor, prepared: PreparedSet) -> None:
    if predictor.largest_component or predictor.fill_holes:
        raise ValueError(
            "a test measures probabilities, and this predictor cleans its masks: load it without largest_component "
            "and fill_holes, or score its masks with mhsvm.evaluation.scorer.score_files"
        )
    if predictor.size != prepared.size:
        shown = "{} x {}".format
        raise ValueError(
            f"the predictor takes images of {shown(*predictor.size)}, {prepared.path} holds {shown(*prepared.size)}: "
            "prepare the set at that size"
        )


def _log_choice(trained: Trained, prepared: PreparedSet, protocol: Protocol, device: torch.device) -> None:
    model, split = describe_model(trained.config), protocol.split
    log.info(
        "%s: %s, %d parameters, on %s",
        trained.name,
        model["name"] + (f" with {len(model['patterns'])} heads" if "patterns" in model else ""),
        sum(parameter.numel() for parameter in trained.model.parameters()),
        device,
    )
    for note in trained.notes:
        log.info("note: %s", note)
    log.info("%s, checksum %s", describe_set(prepared), prepared.checksum[:12])
    log.info("split %s (%s), sha256 %s", split.name, protocol.reason, split.hash)
    if protocol.trained_on is None:
        log.info("%d test images; how many of them the checkpoint was trained on: unknown", len(protocol.ids))
    else:
        log.info(
            "%d test images; the checkpoint was trained on %d of them, and chosen on %d",
            len(protocol.ids),
            protocol.trained_on,
            protocol.chosen_on,
        )
    if protocol.trained_on or protocol.chosen_on:
        log.warning("warning: the checkpoint has seen images of this test part: its metrics are too good")
    if prepared.size != trained.size:
        shown = "{} x {}".format
        log.warning(
            "warning: the set holds images of %s, the network was trained at %s: its metrics may be worse",
            shown(*prepared.size),
            shown(*trained.size),
        )
