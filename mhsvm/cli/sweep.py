"""`mhsvm sweep --config FILE --seeds 0-4 [--folds 5] [--set KEY=V1,V2] [KEY VALUE …]`: many runs of one config."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.console import ConsoleHandler, LogFile, logging_to
from mhsvm.cli.options import parse_with_settings, positive
from mhsvm.cli.parser import CommandParser, program

if TYPE_CHECKING:
    from mhsvm.sweep.places import Place
    from mhsvm.sweep.run_state import RunState
    from mhsvm.sweep.table import Result, Row

log = logging.getLogger("mhsvm")


def main(argv: Sequence[str] | None = None) -> int:
    """Train and test a config with several seeds, folds and settings, and put the results into one table."""
    arguments, settings = parse_with_settings(parser(), argv)
    from mhsvm.assemble import read_config
    from mhsvm.folder_lock import FolderLock
    from mhsvm.sweep.check import check_grid
    from mhsvm.sweep.grid import make_grid
    from mhsvm.sweep.mps import runs_at_once
    from mhsvm.sweep.places import find_places
    from mhsvm.sweep.run_state import RunState

    base = read_config(arguments.config, settings)
    folder = arguments.folder or Path(base.run.folder) / f"{base.run.name or arguments.config.stem}-sweep"
    runs = make_grid(
        arguments.config,
        folder=folder,
        settings=settings,
        choices=arguments.choices,
        seeds=arguments.seeds,
        folds=arguments.folds,
    )
    checked = check_grid(runs, further_sets=arguments.further_sets)
    states = [RunState(run, arguments.config, folder, checked.test_sets[run.name]) for run in runs]
    for state in states:
        state.check_config()
    places = find_places(
        base.run.device,
        per_device=arguments.per_device,
        num_parameters=checked.num_parameters,
        at_once=runs_at_once(),
    )
    if arguments.dry_run:
        _show_plan(states, places)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    # a training of a killed sweep keeps the folder, so that a second sweep does not write the same files
    with FolderLock("a sweep, or a training of a killed sweep,") as lock:
        held = lock.hold(folder)
        with logging_to(ConsoleHandler(), LogFile(folder / "log.txt")):
            return _run(states, places, folder, retries=arguments.retries, lock=held)


def parser() -> CommandParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("sweep"),
        usage=("--config FILE [--seeds 0-4] [--folds K] [--set KEY=V1,V2 …] [options] [KEY VALUE …]",),
        description=main.__doc__,
        examples=(
            "--config configs/ultralight_isic2017.yaml --seeds 0-4 --set optimizer.AdamW.lr=1e-3,5e-4",
            "--config configs/ultralight_isic2017.yaml --folds 5 data.split=kfold-5-42 --test ph2",
        ),
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="as for mhsvm train")
    parser.add_argument("--seeds", type=_seeds, metavar="0-4", help="values of run.seed; default: the config's")
    parser.add_argument("--folds", type=positive, metavar="K", help="every fold of data.split kfold-K-SEED")
    parser.add_argument(
        "--set",
        dest="choices",
        action="append",
        default=[],
        metavar="KEY=V1,V2",
        help="a setting and its values, a list in brackets; several of them make a grid",
    )
    parser.add_argument(
        "--test", dest="further_sets", action="append", default=[], metavar="SET", help="test on this set, too"
    )
    parser.add_argument("--out", dest="folder", type=Path, metavar="FOLDER", help="default: NAME-sweep in run.folder")
    parser.add_argument("--per-device", type=positive, metavar="N", help="runs at a time on a device")
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="of a run that fails; default: 2")
    parser.add_argument("--dry-run", action="store_true", help="check everything and list the runs, start none")
    return parser


def _seeds(text: str) -> list[int]:
    from mhsvm.sweep.grid import parse_seeds

    try:
        return parse_seeds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _show_plan(states: Sequence[RunState], places: Sequence[Place]) -> None:
    from mhsvm.table import format_table

    commands = {state.run.name: state.next_command() for state in states}
    rows = [(name, "done" if command is None else command.purpose) for name, command in commands.items()]
    print(format_table(("run", "next"), rows))
    print(f"{len(rows)} runs, {len(places)} side by side: on {', '.join(place.device for place in places)}")


def _run(states: Sequence[RunState], places: Sequence[Place], folder: Path, *, retries: int, lock: int) -> int:
    from mhsvm.runtime.stop import StopSignal
    from mhsvm.sweep.mps import share_gpus
    from mhsvm.sweep.schedule import Task, run_tasks

    tasks = [
        Task(state.run.name, folder / "logs" / f"{state.run.name}.txt", state.next_command)
        for state in states
        if state.next_command() is not None
    ]
    done = len(states) - len(tasks)
    log.info("%d runs in %s, %d of them done; up to %d side by side", len(states), folder, done, len(places))
    with StopSignal() as stop, share_gpus(places) as shared:
        given_up = run_tasks(tasks, shared, retries=retries, stop=stop, inherited=[lock])
    _write_tables(states, folder, given_up)
    if stop.signum is not None:
        log.info("stopped; the same command goes on")
        return 128 + stop.signum
    if given_up:
        log.error("error: %d of %d runs have no result: %s", len(given_up), len(states), ", ".join(given_up))
        return 1
    return 0


def _write_tables(states: Sequence[RunState], folder: Path, given_up: dict[str, str]) -> None:
    """Write the table of finished runs, also when the sweep was stopped."""
    from mhsvm.sweep.table import Result, make_rows, write_results, write_spreads
    from mhsvm.text_file import write_text

    summaries = [(state.run, state.read_summary(test_set)) for state in states for test_set in state.test_sets]
    results = [Result(run, summary) for run, summary in summaries if summary is not None]
    if not results:
        return
    rows = make_rows(results)
    table = "\n".join([_format(rows), *_absence_notes(results)])
    write_text(folder / "table.txt", table + "\n")
    write_spreads(folder / "table.csv", rows)
    write_results(folder / "table.json", rows, results, given_up)
    log.info("%s\nwritten: %s/table.txt, table.csv, table.json", table, folder)


def _absence_notes(results: Sequence[Result]) -> list[str]:
    """A line for each test whose metrics leave out a class, since folds may differ in their classes."""
    return [
        f"{result.run.name} on {result.set_name}: class {', '.join(absent)} is absent, and left out of the means"
        for result in results
        if (absent := [label for label, own in result.summary.get("classes", {}).items() if own.get("absent")])
    ]


def _format(rows: Sequence[Row]) -> str:
    """A line per metric, set and combination of settings."""
    from mhsvm.sweep.table import CONFIDENCE, SHOWN
    from mhsvm.table import format_table

    header = ("set", "metric", "settings", "runs", "mean", "deviation", f"{CONFIDENCE:.0%} interval")
    lines = []
    for metric in SHOWN:
        for row in rows:
            if metric not in row.spreads:
                # not defined in some test: no class of the mean occurs there
                continue
            spread = row.spreads[metric]
            lines.append(
                (
                    row.set_name,
                    metric,
                    row.variant or "-",
                    str(row.num_runs) + ("" if spread.num == row.num_runs else f" in {spread.num} {row.unit}s"),
                    f"{spread.mean:.4f}",
                    "-" if spread.deviation is None else f"{spread.deviation:.4f}",
                    "-" if spread.interval is None else "{:.4f} to {:.4f}".format(*spread.interval),
                )
            )
    return format_table(header, lines, right=header[4:])
