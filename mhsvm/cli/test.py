"""`test.py --d SET --p CHECKPOINT`: measure a checkpoint on a data set."""

import argparse
import io
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mhsvm.assemble import (
    Trained,
    build_device,
    build_evaluation,
    build_leakage,
    build_split,
    build_test_set,
    describe_model,
    load_trained,
)
from mhsvm.cli.console import ConsoleHandler, logging_to
from mhsvm.cli.options import add_model_options
from mhsvm.data.dataset import load_dataset
from mhsvm.evaluation.evaluator import Evaluation, truth_of
from mhsvm.evaluation.figures import Case, choose_cases, write_figures
from mhsvm.evaluation.folder import check_replaceable, default_folder, write_tables, write_times
from mhsvm.evaluation.gates import measure_gate_maps
from mhsvm.evaluation.measurement import Measurement
from mhsvm.evaluation.protocol import Protocol, choose_protocol
from mhsvm.evaluation.tester import EvaluationJob, evaluate_and_keep, evaluate_job
from mhsvm.files import replace_folder_when_complete
from mhsvm.inference.probability import stored_to_mask
from mhsvm.leakage import Leakage, leakage_content, leakage_lines, write_leaks
from mhsvm.metrics import Scores, per_image
from mhsvm.models import MHSVM
from mhsvm.prepare.native import NativeMasks, open_native_masks
from mhsvm.store import PredictionSet, PredictionWriter, PreparedSet, write_gate_maps
from mhsvm.system import code_version, device_model, peak_memory

log = logging.getLogger("mhsvm")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure a checkpoint, ours or a published one, on the test part of a data set."""
    arguments = _parse(argv)
    device = build_device(arguments.device)
    trained = load_trained(
        arguments.p,
        model_name=arguments.model,
        gate_threshold=arguments.gate_threshold,
        backend=arguments.backend,
        device=device,
    )
    if arguments.heads is not None:
        _check_heads(trained.model, arguments.heads)
    transcript = io.StringIO()
    with (
        build_test_set(trained, arguments.d) as prepared,
        logging_to(ConsoleHandler(), logging.StreamHandler(transcript)),
    ):
        protocol = choose_protocol(
            prepared,
            recorded=trained.data,
            asked=arguments.split,
            make_split=lambda name: build_split(name, prepared),
        )
        name = f"{prepared.name}-{protocol.split.name}{'-unseen' if arguments.drop_seen else ''}"
        folder = arguments.out or default_folder(trained.path, name)
        check_replaceable(folder)
        _log_choice(trained, prepared, protocol, device)
        leakage = build_leakage(trained, prepared, protocol.ids)
        for line in leakage_lines(leakage):
            log.info("%s", line)
        measured = _drop_seen(protocol.ids, leakage) if arguments.drop_seen else protocol.ids
        if arguments.save_maps is not None:
            _check_maps(trained.model, arguments.save_maps, measured)
        dataset = load_dataset(prepared, measured)
        job = build_evaluation(trained, dataset, batch_size=arguments.batch_size, device=device)
        with (
            _open_native(arguments.native_truth, prepared, measured) as native,
            replace_folder_when_complete(folder) as partial,
        ):
            measurement = Measurement(dataset, threshold=job.threshold, boundary=arguments.boundary, native=native)
            evaluation = _measure(partial, trained, prepared, protocol, leakage, job, measurement)
            if leakage.training_set is not None and leakage.leaks:
                with PreparedSet.open(leakage.training_set) as training_set:
                    write_leaks(partial, leakage.leaks, training_set, prepared, name="leaks")
            with PredictionSet.open(partial / "predictions.h5") as predictions:
                write_figures(partial / "figures", list(_cases(job, evaluation, predictions)))
            if arguments.save_maps is not None:
                ids, gate = tuple(dict.fromkeys(arguments.save_maps)), describe_model(trained.config)["gate"]
                maps = measure_gate_maps(trained.model, dataset, ids, augment=job.augment, gate=gate, device=device)
                write_gate_maps(partial / "maps.h5", maps)
            log.info("cases, predictions and figures: %s", folder)
            (partial / "log.txt").write_text(transcript.getvalue(), encoding="utf-8")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="test.py", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--h", dest="heads", type=int, metavar="N", help="check that the checkpoint has so many heads")
    parser.add_argument("--d", required=True, metavar="SET", help="name in data/, prepared file or folder")
    parser.add_argument("--p", required=True, metavar="FILE", help="checkpoint, ours or a published one")
    parser.add_argument("--model", metavar="NAME", help="take this network instead of the one that the file tells")
    parser.add_argument("--split", metavar="NAME", help="take the test part of this split")
    parser.add_argument("--drop-seen", action="store_true", help="leave out test images that training has seen")
    parser.add_argument(
        "--native-truth",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folders or zip files of the masks at the images' own sizes: measure there, too",
    )
    parser.add_argument(
        "--no-boundary", dest="boundary", action="store_false", help="leave hd95 and assd out, which take longest"
    )
    parser.add_argument(
        "--save-maps",
        nargs="+",
        metavar="ID",
        help="of MHS-VM: keep what its gates do on these test images, in maps.h5",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: tests/ in the checkpoint's run folder")
    add_model_options(parser)
    return parser.parse_args(argv)


def _check_heads(model: nn.Module, heads: int) -> None:
    _check_has_heads(model, "--h")
    found = len(model.patterns)
    if found != heads:
        raise ValueError(
            f"the checkpoint has {found} heads, not {heads}: they scan along {', '.join(model.patterns)}. "
            f"Give --h {found}, or another checkpoint"
        )


def _check_has_heads(model: nn.Module, option: str) -> None:
    if not isinstance(model, MHSVM):
        raise ValueError(f"the checkpoint's network, {type(model).__name__}, has no scan heads: leave {option} out")


def _check_maps(model: nn.Module, wanted: Sequence[str], ids: Sequence[str]) -> None:
    _check_has_heads(model, "--save-maps")
    unknown = sorted(set(wanted) - set(ids))
    if unknown:
        raise ValueError(
            f"--save-maps names what is not among the test images: {', '.join(unknown[:5])}. "
            f"Name test images, such as {', '.join(ids[:3])}"
        )


def _log_choice(trained: Trained, prepared: PreparedSet, protocol: Protocol, device: torch.device) -> None:
    model, split = describe_model(trained.config), protocol.split
    log.info(
        "%s: %s, %d parameters, on %s",
        trained.path,
        model["name"] + (f" with {len(model['patterns'])} heads" if "patterns" in model else ""),
        sum(parameter.numel() for parameter in trained.model.parameters()),
        device,
    )
    for note in trained.notes:
        log.info("note: %s", note)
    log.info("%s (%s), checksum %s", prepared.name, prepared.path, prepared.checksum[:12])
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
        log.warning("warning: the checkpoint has seen images of this test part: its figures come out too good")
    if prepared.size != trained.size:
        shown = "{} x {}".format
        log.warning(
            "warning: the set holds images of %s, the network was trained at %s: its figures may come out worse",
            shown(*prepared.size),
            shown(*trained.size),
        )


def _drop_seen(test_ids: Sequence[str], leakage: Leakage) -> tuple[str, ...]:
    if leakage.unknown is not None:
        raise ValueError(f"what is to be dropped is not known: {leakage.unknown}. Leave --drop-seen out")
    unseen = tuple(image_id for image_id in test_ids if image_id not in leakage.seen)
    if not unseen:
        raise ValueError(f"the checkpoint has seen all {len(test_ids)} test images: name another split with --split")
    log.info("left out: %d, measured: %d", len(test_ids) - len(unseen), len(unseen))
    return unseen


def _open_native(
    sources: Sequence[Path] | None, prepared: PreparedSet, ids: Sequence[str]
) -> AbstractContextManager[NativeMasks | None]:
    size = "{} x {}".format(*prepared.size)
    if sources is None:
        log.info("measured at %s only; --native-truth PATH measures at the images' own sizes too", size)
        return nullcontext()
    log.info("measured at %s, and at the sizes of the masks in %s", size, ", ".join(map(str, sources)))
    return open_native_masks(sources, ids, set_name=prepared.name, num_classes=prepared.num_classes)


def _measure(
    folder: Path,
    trained: Trained,
    prepared: PreparedSet,
    protocol: Protocol,
    leakage: Leakage,
    job: EvaluationJob,
    measurement: Measurement,
) -> Evaluation:
    """Put predictions and tables into the test's folder, and the figures into the log."""
    start = time.perf_counter()
    evaluation = _evaluate(job, measurement, prepared, protocol, folder / "predictions.h5")
    write_times(
        folder,
        num_images=len(job.dataset),
        seconds=time.perf_counter() - start,
        memory_gib=peak_memory(),
        device=device_model(job.device),
    )
    native = measurement.native
    described = _describe(trained, prepared, protocol, job, native=native is not None)
    described["leakage"] = _measure_leakage(evaluation, prepared, protocol, job, leakage)
    lines = write_tables(
        folder,
        Scores(evaluation.ids, evaluation.counts, measurement.distances, measurement.names),
        evaluation.confusion.sum(dim=0),
        loss=evaluation.loss,
        num_classes=prepared.num_classes,
        calibration=measurement.calibration,
        described=described,
        native=None if native is None else (native.scores, native.confusion, native.sizes),
    )
    for line in lines:
        log.info("%s", line)
    return evaluation


def _evaluate(
    job: EvaluationJob, measurement: Measurement, prepared: PreparedSet, protocol: Protocol, path: Path
) -> Evaluation:
    with PredictionWriter(
        path,
        set_name=prepared.path.name,
        set_checksum=prepared.checksum,
        size=prepared.size,
        num_classes=prepared.num_classes,
        attributes={
            "split": protocol.split.name,
            "split_hash": protocol.split.hash,
            "threshold": job.threshold,
            "set_path": str(prepared.path.resolve()),
        },
    ) as predictions:
        return evaluate_and_keep(job, predictions, measurement)


def _describe(trained: Trained, prepared: PreparedSet, protocol: Protocol, job: EvaluationJob, *, native: bool) -> dict:
    """What a summary says besides figures."""
    size = "{} x {}".format(*prepared.size)
    return {
        "model": describe_model(trained.config),
        "protocol": {
            "set": {"name": prepared.name, "checksum": prepared.checksum, "size": list(prepared.size)},
            "split": protocol.split.name,
            "split_hash": protocol.split.hash,
            "reason": protocol.reason,
            "part": "test",
            "num_images": len(job.dataset),
            "trained_on": protocol.trained_on,
            "chosen_on": protocol.chosen_on,
            "threshold": job.threshold,
            "measured_at": f"{size} and native" if native else f"{size} only",
        },
        "checkpoint": {
            "file": trained.path.name,
            "sha256": trained.checksum,
            "published": trained.published,
            "size": list(trained.size),
        },
        "version": code_version(),
        "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else str(job.device),
    }


def _measure_leakage(
    evaluation: Evaluation, prepared: PreparedSet, protocol: Protocol, job: EvaluationJob, leakage: Leakage
) -> dict:
    """Figures of all test images and of the unseen ones alone, whichever of them were asked for."""
    left_out = [image_id for image_id in protocol.ids if image_id not in set(evaluation.ids)]
    every = evaluation.counts
    if left_out:
        rest = evaluate_job(replace(job, dataset=load_dataset(prepared, left_out)))
        every = torch.cat([every, rest.counts])
    unseen = evaluation.counts[torch.tensor([image_id not in leakage.seen for image_id in evaluation.ids])]
    return leakage_content(leakage, every=every, unseen=unseen, dropped=bool(left_out))


def _cases(job: EvaluationJob, evaluation: Evaluation, predictions: PredictionSet) -> Iterator[Case]:
    dice = per_image(evaluation.counts)["dice"].mean(dim=1).tolist()
    for group, rank, row in choose_cases(dice):
        (probability,) = predictions.probability([row])
        yield Case(
            id=evaluation.ids[row],
            group=group,
            rank=rank,
            dice=dice[row],
            image=job.dataset.images[row].numpy(),
            truth=truth_of(job.dataset.masks[row], job.dataset.num_classes).numpy(),
            pred=stored_to_mask(probability, job.threshold),
            probability=probability,
        )
