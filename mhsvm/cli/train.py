"""`train.py --config FILE [KEY VALUE …]`, or `train.py --resume RUN`; with `--profile`, where the time goes."""

import argparse
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from mhsvm.assemble import build_job, build_set, build_split, read_config, recorded_config
from mhsvm.cli.console import ConsoleHandler, logging_to
from mhsvm.cli.options import parse_with_settings
from mhsvm.config import get_value, set_value
from mhsvm.data.split_file import Split
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.runtime.distributed import LostProcess, World, open_world
from mhsvm.runtime.stop import StopSignal
from mhsvm.store import PreparedSet
from mhsvm.table import format_table
from mhsvm.training.errors import Interrupted, NotFinite, OutOfMemory, TrainingError
from mhsvm.training.job import Job, Progress
from mhsvm.training.profile import STAGES, TrainingProfile, profile_training
from mhsvm.training.run_folder import RunFolder
from mhsvm.training.trainer import train
from mhsvm.training.training_state import restore

log = logging.getLogger("mhsvm")


def main(argv: Sequence[str] | None = None) -> int:
    """Train a network from a config, or resume a run."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage="train.py --config FILE [--profile] [KEY VALUE …] | train.py --resume RUN [--profile]",
        description=main.__doc__,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with what differs from the defaults")
    parser.add_argument("--resume", metavar="RUN", help="run folder to go on with; needs no config")
    parser.add_argument("--profile", action="store_true", help="only time the training and tell where its time goes")
    arguments, settings = parse_with_settings(parser, argv)
    if (arguments.config is None) == (arguments.resume is None):
        raise ValueError(f"give either --config or --resume; {parser.format_usage().strip()}")
    with open_world() as world:
        return _start(arguments, settings, world)


@dataclass(frozen=True)
class _Plan:
    """What the first process finds out for all: the checkpoint is that to go on with, or None."""

    config: CfgNode
    run: RunFolder
    split: Split
    checksum: str
    checkpoint: dict | None


def _start(arguments: argparse.Namespace, settings: Sequence[str], world: World) -> int:
    plan = world.from_first(lambda: _plan(arguments, settings, restarted=world.restarts > 0))
    with world.together(), build_set(plan.config) as prepared:
        _check_set(prepared, plan.checksum)
        job = build_job(plan.config, prepared, plan.split, world)
        progress = job.fresh_progress() if plan.checkpoint is None else restore(job, plan.checkpoint)
    if arguments.profile:
        with world.together():
            return _profile(job)
    if plan.checkpoint is None:
        world.from_first(lambda: plan.run.create(config=plan.config.dump(), split=plan.split))
    return _run(job, progress, plan.run)


def _plan(arguments: argparse.Namespace, settings: Sequence[str], *, restarted: bool) -> _Plan:
    if arguments.resume:
        return _resumed(arguments.resume, settings)
    config = read_config(arguments.config, settings)
    run = RunFolder(Path(config.run.folder) / (config.run.name or Path(arguments.config).stem))
    if restarted and not arguments.profile:
        # torchrun repeats the command that it was given, after one of its processes has failed
        run.remove_unsaved_start()
        if run.last.is_file():
            return _resumed(run.path, settings)
    if not arguments.profile:
        run.check_new()
    with build_set(config) as prepared:
        return _Plan(config, run, build_split(config.data.split, prepared), prepared.checksum, None)


def _resumed(folder: str | Path, settings: Sequence[str]) -> _Plan:
    run = RunFolder(folder)
    if not run.last.is_file():
        raise FileNotFoundError(f"{folder} is not a run that can be resumed: there is no {run.last}")
    checkpoint = read_checkpoint(run.last)
    config = recorded_config(checkpoint["config"], run.last)
    _refuse_contradictions(config, settings, folder)
    split, recorded = Split.load(run.split), checkpoint["data"]
    if split.hash != recorded["split_hash"]:
        raise ValueError(
            f"the run's split.txt was changed: its hash is {split.hash[:12]}…, not {recorded['split_hash'][:12]}…"
        )
    return _Plan(config, run, split, recorded["checksum"], checkpoint)


def _refuse_contradictions(config: CfgNode, settings: Sequence[str], folder: str | Path) -> None:
    # the pairs go into a copy in the usual way, so that they are checked and typed in the usual way
    asked = read_config(None, settings)
    given = config.clone()
    given.defrost()
    for key in settings[::2]:
        set_value(given, key, get_value(asked, key))
        if get_value(given, key) != get_value(config, key):
            raise ValueError(
                f"{folder} was started with {key} {get_value(config, key)}; "
                f"resuming cannot make it {get_value(given, key)}"
            )


def _check_set(prepared: PreparedSet, checksum: str) -> None:
    if prepared.checksum != checksum:
        raise ValueError(
            f"{prepared.path} is not the set that this run was started with: its checksum is "
            f"{prepared.checksum[:12]}…, not {checksum[:12]}…"
        )


def _profile(job: Job) -> int:
    with logging_to(ConsoleHandler()):
        _log_job(job)
        try:
            profile = profile_training(job)
        except (TrainingError, NotFinite) as error:
            log.error("error: %s", error)
            return 1
    print(f"\n{_profile_table(profile)}\n\n{_profile_figures(profile, job)}")
    return 0


def _profile_table(profile: TrainingProfile) -> str:
    header, epoch = ("", "an epoch", "a step", "share"), sum(profile.parts.values())
    rows = []
    for name, seconds in profile.parts.items():
        of_step = name in (*STAGES, "idle")
        a_step = f"{1e3 * seconds / profile.num_steps:.3f} ms" if of_step else ""
        rows.append((name, f"{seconds:.3f} s", a_step, f"{seconds / epoch:.1%}"))
    return format_table(header, [*rows, ("all", f"{epoch:.3f} s", "", "")], right=header[1:])


def _profile_figures(profile: TrainingProfile, job: Job) -> str:
    on_gpu = job.device.type == "cuda"
    lines = [
        f"training {profile.num_train / profile.training:.1f} images/s in {profile.num_steps} steps an epoch, "
        f"validation {profile.num_val / profile.validation:.1f} images/s",
        *([] if profile.peak_bytes is None else [f"memory: at most {profile.peak_bytes / 2**30:.2f} GiB"]),
        f"each stage is what a pass over batches takes longer with it{', as CUDA graphs' if on_gpu else ''};",
        f"idle is what training takes beyond that{': the GPU waits' if on_gpu else ''}",
    ]
    return "\n".join(lines)


def _run(job: Job, progress: Progress, run: RunFolder) -> int:
    if not job.world.is_first:
        console = ConsoleHandler()
        console.setLevel(logging.ERROR)
        with logging_to(console):
            return _train(job, progress, run)
    log_file = logging.FileHandler(run.log, encoding="utf-8")
    log_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with logging_to(ConsoleHandler(), log_file):
        return _train(job, progress, run)


def _train(job: Job, progress: Progress, run: RunFolder) -> int:
    try:
        _log_start(job, progress, run)
        with StopSignal() as stop:
            train(job, progress, run, stop)
        log.info("done: python test.py --d %s --p %s", job.description["config"]["data"]["set"], run.best)
    except Interrupted:
        log.info(
            "stopped in epoch %d after %d of %d images; go on with: python train.py --resume %s",
            progress.epoch + 1,
            progress.position,
            len(job.train_set),
            run.path,
        )
        return 128 + (stop.signum or signal.SIGINT)
    except TrainingError as error:
        alike = not isinstance(error, OutOfMemory)
        if job.world.is_first or not alike:
            log.error("error: %s", error)
        if alike:
            # torchrun ends all processes when one exits: not before the first has said why
            job.world.gather(None)
        return 1
    except LostProcess as error:
        if job.world.is_first:
            log.error("error: %s", error)
        return 1
    return 0


def _log_start(job: Job, progress: Progress, run: RunFolder) -> None:
    log.info("%s %s", "resuming" if progress.epoch or progress.position else "starting", run.path)
    _log_job(job)


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
