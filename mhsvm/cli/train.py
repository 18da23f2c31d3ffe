"""`mhsvm train --config FILE [KEY VALUE …]`, or `mhsvm train --resume RUN`; with `--profile`, a profile of the time."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.console import ConsoleHandler, LogFile, logging_to
from mhsvm.cli.options import parse_with_settings
from mhsvm.cli.parser import CommandParser, program

if TYPE_CHECKING:
    from mhsvm.assemble import Plan
    from mhsvm.folder_lock import FolderLock
    from mhsvm.runtime.distributed import World
    from mhsvm.training.job import Job, Progress
    from mhsvm.training.profile import TrainingProfile
    from mhsvm.training.run_folder import RunFolder

log = logging.getLogger("mhsvm")


def main(argv: Sequence[str] | None = None) -> int:
    """Train a network from a config, or resume a run."""
    options = parser()
    arguments, settings = parse_with_settings(options, argv)
    if (arguments.config is None) == (arguments.resume is None):
        raise ValueError(f"give either --config or --resume; {options.format_usage().strip()}")
    from mhsvm.runtime.distributed import open_world

    with open_world() as world:
        return _start(arguments, settings, world)


def parser() -> CommandParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("train"),
        usage=("--config FILE [--profile] [KEY VALUE …]", "--resume RUN [--profile] [train.epochs N]"),
        description=main.__doc__,
        examples=(
            "--config configs/ultralight_isic2017.yaml train.epochs 100 optimizer.AdamW.lr=5e-4",
            "--resume results/ultralight_isic2017",
            "--resume results/ultralight_isic2017 train.epochs 400",
        ),
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with the settings that differ from the defaults")
    parser.add_argument(
        "--resume", metavar="RUN", help="run folder to go on with; needs no config; train.epochs N extends it"
    )
    parser.add_argument("--profile", action="store_true", help="only time the training, stage by stage")
    return parser


def _start(arguments: argparse.Namespace, settings: Sequence[str], world: World) -> int:
    from mhsvm.assemble import open_plan
    from mhsvm.folder_lock import FolderLock

    # the first process holds the folder for all
    with FolderLock("a training") as lock:
        plan = world.from_first(lambda: _plan(arguments, settings, world, lock))
        job, progress = open_plan(plan, world)
        if arguments.profile:
            with world.together():
                return _profile(job)
        assert plan.run is not None, "the command always has a run folder"
        world.from_first(lambda: plan.create_folder(lock))
        return _run(job, progress, plan.run)


def _plan(arguments: argparse.Namespace, settings: Sequence[str], world: World, lock: FolderLock) -> Plan:
    from mhsvm.assemble import plan_run, read_config, run_folder
    from mhsvm.training.run_folder import RunFolder

    if arguments.resume:
        return _plan_resumed(RunFolder(arguments.resume), arguments, settings, world, lock)
    config = read_config(arguments.config, settings)
    run = run_folder(config, name=Path(arguments.config).stem)
    if world.restarts > 0 and not arguments.profile and run.last.is_file():
        # torchrun repeats its command after one of the processes has failed
        return _plan_resumed(run, arguments, settings, world, lock)
    if not arguments.profile:
        if run.is_unsaved_start():
            lock.hold(run.path)
        run.check_new()
    return plan_run(config, run, num_processes=world.size)


def _plan_resumed(
    run: RunFolder, arguments: argparse.Namespace, settings: Sequence[str], world: World, lock: FolderLock
) -> Plan:
    from mhsvm.assemble import plan_resumed

    # held before anything is read, so that no other process goes on with the run meanwhile
    if not arguments.profile and (run.last.is_file() or run.is_unsaved_start()):
        lock.hold(run.path)
    return plan_resumed(run.path, settings, num_processes=world.size)


def _profile(job: Job) -> int:
    from mhsvm.training.errors import NotFinite, TrainingError
    from mhsvm.training.profile import profile_training

    with logging_to(ConsoleHandler()):
        _log_job(job)
        try:
            profile = profile_training(job)
        except (TrainingError, NotFinite) as error:
            log.error("error: %s", error)
            return 1
    print(f"\n{_profile_table(profile)}\n\n{_profile_notes(profile, on_gpu=job.device.type == 'cuda')}")
    return 0


def _profile_table(profile: TrainingProfile) -> str:
    from mhsvm.table import format_table
    from mhsvm.training.profile import STAGES

    header, epoch = ("", "an epoch", "a step", "share"), sum(profile.parts.values())
    rows = []
    for name, seconds in profile.parts.items():
        in_steps = name in (*STAGES, "idle")
        per_step = f"{1e3 * seconds / profile.num_steps:.3f} ms" if in_steps else ""
        rows.append((name, f"{seconds:.3f} s", per_step, f"{seconds / epoch:.1%}"))
    return format_table(header, [*rows, ("all", f"{epoch:.3f} s", "", "")], right=header[1:])


def _profile_notes(profile: TrainingProfile, *, on_gpu: bool) -> str:
    lines = [
        f"training {profile.num_train / profile.training:.1f} images/s in {profile.num_steps} steps an epoch, "
        f"validation {profile.num_val / profile.validation:.1f} images/s",
        *([] if profile.peak_bytes is None else [f"memory: at most {profile.peak_bytes / 2**30:.2f} GiB"]),
        f"each stage is the additional time of a pass with it{', as CUDA graphs' if on_gpu else ''};",
        f"idle is the time of training beyond that{': the GPU waits' if on_gpu else ''}",
    ]
    return "\n".join(lines)


def _run(job: Job, progress: Progress, run: RunFolder) -> int:
    if not job.world.is_first:
        console = ConsoleHandler()
        console.setLevel(logging.ERROR)
        with logging_to(console):
            return _train(job, progress, run)
    with logging_to(ConsoleHandler(), LogFile(run.log)):
        return _train(job, progress, run)


def _train(job: Job, progress: Progress, run: RunFolder) -> int:
    from mhsvm.runtime.distributed import LostProcess
    from mhsvm.runtime.stop import StopSignal
    from mhsvm.training.errors import Interrupted, OutOfMemory, TrainingError
    from mhsvm.training.trainer import train

    try:
        log.info("%s %s", "resuming" if progress.epoch or progress.position else "starting", run.path)
        _log_job(job)
        if progress.epoch >= job.epochs:
            log.info(
                "all %d epochs are done; go on to more with: %s --resume %s train.epochs N",
                job.epochs,
                program("train"),
                run.path,
            )
        with StopSignal() as stop:
            train(job, progress, run, stop)
        log.info(
            "done: %s --data %s --checkpoint %s", program("test"), job.description["config"]["data"]["set"], run.best
        )
    except Interrupted:
        log.info(
            "stopped in epoch %d after %d of %d images; go on with: %s --resume %s",
            progress.epoch + 1,
            progress.position,
            len(job.train_set),
            program("train"),
            run.path,
        )
        return 128 + (stop.signum or signal.SIGINT)
    except TrainingError as error:
        alike = not isinstance(error, OutOfMemory)
        if job.world.is_first or not alike:
            log.error("error: %s", error)
        if alike:
            # torchrun ends all processes when one exits: wait until the first has logged the reason
            job.world.gather(None)
        return 1
    except LostProcess as error:
        if job.world.is_first:
            log.error("error: %s", error)
        return 1
    return 0


def _log_job(job: Job) -> None:
    data, model = job.description["data"], job.description["config"]["model"]["name"]
    log.info("%s, %d parameters, on %s", model, sum(p.numel() for p in job.model.parameters()), job.device)
    log.info(
        "%s, split %s (sha256 %s): %d train, %d val, %d test",
        data["name"],
        data["split"],
        data["split_hash"][:12],
        *(len(data[f"{part}_ids"]) for part in ("train", "val", "test")),
    )
    for note in job.notes:
        log.info("%s", note)
    if set(data["val_ids"]) & set(data["test_ids"]):
        log.warning("this split's validation images are also its test images: the best checkpoint is chosen on them")
