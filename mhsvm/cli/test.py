"""`mhsvm test --data SET --checkpoint FILE`: measure a checkpoint on a data set."""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhsvm.cli.console import ConsoleHandler, logging_to
from mhsvm.cli.options import add_metric_options, add_model_options
from mhsvm.cli.parser import CommandParser, program

if TYPE_CHECKING:
    from mhsvm.assemble import Trained
    from mhsvm.store import PreparedSet

log = logging.getLogger("mhsvm")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure a checkpoint, ours or a published one, on the test part of a data set."""
    arguments = parser().parse_args(argv)
    from mhsvm.assemble import build_test, open_native
    from mhsvm.evaluation import folder as folders
    from mhsvm.evaluation.testing import evaluate_test
    from mhsvm.text_file import write_text

    transcript = io.StringIO()
    with ExitStack() as stack:
        trained, prepared, folder = _open(arguments, stack)
        stack.enter_context(logging_to(ConsoleHandler(), logging.StreamHandler(transcript)))
        run = build_test(
            trained,
            prepared,
            batch_size=arguments.batch_size,
            device=next(trained.model.parameters()).device,
            **_choices(arguments),
        )
        size = "{} x {}".format(*prepared.size)
        if arguments.native_masks is None:
            log.info("measured at %s only; --native-truth PATH measures at the images' own sizes too", size)
        else:
            paths = ", ".join(map(str, arguments.native_masks))
            log.info("measured at %s, and at the sizes of the masks in %s", size, paths)
        with open_native(run, arguments.native_masks) as native, folders.RESULTS.replace(folder) as partial:
            result = evaluate_test(
                run,
                boundary=arguments.boundary,
                metric_settings=arguments.metric_settings,
                native=native,
                gate_maps=arguments.gate_maps,
                predictions=partial / folders.PREDICTIONS,
                progress=True,
            )
            for line in folders.result_lines(result):
                log.info("%s", line)
            folders.fill_folder(partial, result)
            log.info("cases, predictions and overlays: %s", folder)
            write_text(partial / "log.txt", transcript.getvalue())
    return 0


def _choices(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("split", "drop_seen", "native_masks", "gate_maps")}


def _open(arguments: argparse.Namespace, stack: ExitStack) -> tuple[Trained, PreparedSet, Path]:
    """Load the checkpoint, open the set and choose the folder; all errors are raised together, before any work."""
    import torch

    from mhsvm.assemble import build_device, build_test_set, check_test, load_trained
    from mhsvm.assemble.networks import check_backend_runs
    from mhsvm.errors import Errors
    from mhsvm.evaluation import folder as folders
    from mhsvm.prepare.sets import find_set

    errors = Errors()
    device, trained, prepared, folder = torch.device("cpu"), None, None, arguments.folder
    if folder is not None:
        with errors.collected():
            folders.RESULTS.check(folder)
    with errors.collected():
        device = build_device(arguments.device)
    if arguments.backend is not None:
        with errors.collected():
            check_backend_runs(arguments.backend, device)
    with errors.collected():
        trained = load_trained(
            arguments.checkpoint,
            model_name=arguments.model,
            gate_threshold=arguments.gate_threshold,
            heads=arguments.heads,
            backend=arguments.backend,
            plugins=arguments.plugins,
            device=device,
        )
    with errors.collected():
        path = find_set(arguments.data)
        # preparing a folder takes long, and the start will be repeated
        if trained is not None and not (errors and path.is_dir()):
            prepared = stack.enter_context(build_test_set(trained, arguments.data))
    if trained is not None and prepared is not None:
        with errors.collected():
            protocol = check_test(trained, prepared, **_choices(arguments))
            if folder is None:
                name = f"{prepared.name}-{protocol.split.name}{'-unseen' if arguments.drop_seen else ''}"
                assert trained.path is not None, "the model is loaded from a file"
                folder = folders.default_folder(trained.path, name)
                folders.RESULTS.check(folder)
    errors.raise_if_any("reasons why this test cannot start")
    assert trained is not None
    assert prepared is not None
    return trained, prepared, folder


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("test"),
        description=main.__doc__,
        examples=(
            "--checkpoint results/ultralight_isic2017/checkpoints/best.pt --data isic2017",
            "--checkpoint isic2017-wu-sorted --data ph2 --native-truth PH2Dataset",
        ),
    )
    parser.add_argument(
        "--heads", "--h", dest="heads", type=int, metavar="N", help="check that the checkpoint has N heads"
    )
    parser.add_argument(
        "--data", "--d", dest="data", required=True, metavar="SET", help="name in data/, prepared file or folder"
    )
    parser.add_argument(
        "--checkpoint",
        "--p",
        dest="checkpoint",
        required=True,
        metavar="FILE",
        help="checkpoint, ours or a published one",
    )
    parser.add_argument("--model", metavar="NAME", help="take this network instead of the recorded one")
    parser.add_argument("--split", metavar="NAME", help="take the test part of this split")
    parser.add_argument("--drop-seen", action="store_true", help="leave out test images that training has seen")
    parser.add_argument(
        "--native-truth",
        dest="native_masks",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="folders, zip files or lists of the masks at the images' own sizes: measure there, too",
    )
    add_metric_options(parser)
    parser.add_argument(
        "--save-maps",
        dest="gate_maps",
        nargs="+",
        default=(),
        metavar="ID",
        help="for MHS-VM: keep the gates on these test images, in maps.h5",
    )
    parser.add_argument(
        "--out", dest="folder", type=Path, metavar="FOLDER", help="default: tests/ in the checkpoint's run folder"
    )
    add_model_options(parser)
    return parser
