"""Runs: a training that starts from a config or goes on from its last checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from mhsvm.assemble.checks import check_training
from mhsvm.assemble.data import build_set
from mhsvm.assemble.extension import KEY as EPOCHS
from mhsvm.assemble.extension import extend
from mhsvm.assemble.settings import read_config, recorded_config
from mhsvm.assemble.training import build_job
from mhsvm.config import get_value, pair_up, read_value, set_value
from mhsvm.data.split_file import Split
from mhsvm.errors import Errors
from mhsvm.files import StrPath
from mhsvm.folder_lock import FolderLock
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.runtime.distributed import World
from mhsvm.store import PreparedSet
from mhsvm.text_file import write_text
from mhsvm.training.checkpoint import check_parts, epochs_done
from mhsvm.training.job import Job, Progress
from mhsvm.training.run_folder import RunFolder
from mhsvm.training.training_state import changed_threads, restore


@dataclass(frozen=True)
class Plan:
    """A training that is checked and not yet built.

    Attributes:
        config: Its settings.
        run: Its folder; None keeps everything in memory.
        split: The parts of its set.
        checksum: The checksum of its set.
        checkpoint: The checkpoint to go on from; None for a new run.
        notes: Changes of the run, in sentences for the log.
    """

    config: CfgNode
    run: RunFolder | None
    split: Split
    checksum: str
    checkpoint: dict | None = None
    notes: tuple[str, ...] = ()

    def create_folder(self, lock: FolderLock) -> None:
        """Make the folder of a new run, and record an extension of a resumed one; a run in memory needs no folder.

        Args:
            lock: Holds the folder from then on.
        Raises:
            FileExistsError: The folder exists.
            ValueError: Another process works in it.
        """
        if self.run is None:
            return
        if self.checkpoint is None:
            self.run.path.mkdir(parents=True, exist_ok=True)
            lock.hold(self.run.path)
            self.run.create(config=self.config.dump(), split=self.split)
        elif read_value(self.run.config, EPOCHS) != self.config.train.epochs:
            # of the rest, config.yaml may name more plugins than the checkpoint
            recorded = self.config.clone()
            recorded.defrost()
            recorded.run.plugins = read_value(self.run.config, "run.plugins")
            write_text(self.run.config, recorded.dump())


def run_folder(config: CfgNode, *, name: str) -> RunFolder:
    """The folder that a config names; `name` is taken if its `run.name` is empty."""
    return RunFolder(Path(config.run.folder) / (config.run.name or name))


def plan_run(config: CfgNode, run: RunFolder | None, *, num_processes: int = 1) -> Plan:
    """Check everything that a new run needs.

    Raises:
        FileNotFoundError: There is no such set or checkpoint, and nothing else is wrong.
        ValueError: Something is wrong; several errors are listed.
    """
    config, split, checksum = check_training(config, num_processes=num_processes)
    return Plan(config, run, split, checksum)


def _hint_at_run(path: Path) -> str:
    """The run that a path probably means: one of its checkpoints, or only the name of the run."""
    places = [*list(path.parents)[:2], Path("results") / path]
    return next((f". Did you mean {str(run)!r}?" for run in places if RunFolder(run).last.is_file()), "")


def plan_resumed(folder: StrPath, settings: Sequence[str] = (), *, num_processes: int = 1) -> Plan:
    """Read a run folder to go on from its last checkpoint, or from the start if it ended before its first one.

    Args:
        folder: The run folder. The plugins that its config.yaml names are imported.
        settings: Pairs KEY VALUE, which must agree with the run's config, except `train.epochs`, which extends it.
        num_processes: Processes that train together.
    Raises:
        FileNotFoundError: The folder has no checkpoint.
        ValueError: A setting differs from the run's, its epochs cannot be changed so, its split file was changed, its
            checkpoint names plugins that its config.yaml does not name, or cannot be resumed from.
    """
    run = RunFolder(folder)
    if run.is_unsaved_start() and run.config.is_file():
        return _plan_again(run, settings, num_processes=num_processes)
    if not run.last.is_file():
        raise FileNotFoundError(
            f"{folder} is not a run that can be resumed: there is no {run.last}{_hint_at_run(run.path)}"
        )
    checkpoint = _read_last(run)
    check_parts(checkpoint, run.last, "config", "data", "model")
    # its config.yaml is the user's, like the one that a training starts with
    config = recorded_config(
        checkpoint["config"],
        run.last,
        plugins=read_value(run.config, "run.plugins"),
        allowed_in=f"run.plugins of {run.config}",
    )
    done = epochs_done(checkpoint, run.last)
    epochs = _refuse_contradictions(config, settings, folder)
    notes: tuple[str, ...] = ()
    if epochs != config.train.epochs:
        config, notes = extend(config, epochs, done=done, run=run)
    split, recorded = Split.load(run.split), checkpoint["data"]
    if split.hash != recorded["split_hash"]:
        raise ValueError(
            f"the run's split.txt was changed: its hash is {split.hash[:12]}…, not {recorded['split_hash'][:12]}…"
        )
    return Plan(config, run, split, recorded["checksum"], checkpoint, notes)


def _plan_again(run: RunFolder, settings: Sequence[str], *, num_processes: int) -> Plan:
    """Plan a run that ended before its first checkpoint: its config is the one in its folder."""
    config = read_config(run.config)
    epochs = _refuse_contradictions(config, settings, run.path)
    if epochs != config.train.epochs:
        config = read_config(run.config, [EPOCHS, str(epochs)])
    plan = plan_run(config, run, num_processes=num_processes)
    if run.split.is_file() and Split.load(run.split).hash != plan.split.hash:
        raise ValueError(
            f"{run.split} is not the split that {config.data.split} names now. Nothing was trained yet: start with "
            f"`config` {run.config}"
        )
    return replace(plan, notes=("nothing was saved before: starting again from config.yaml",))


def _read_last(run: RunFolder) -> dict:
    try:
        return read_checkpoint(run.last)
    except ValueError as error:
        way_out = f"copy {run.best} over it to go on from the best epoch, or " if run.best.is_file() else ""
        raise ValueError(f"{error}. To resume, {way_out}start the run again under another name") from error


def open_plan(plan: Plan, world: World) -> tuple[Job, Progress]:
    """Build the training of a plan in each of its processes, at its first step or at that of its checkpoint.

    Raises:
        ValueError: The set is not the one that the run was started with, the checkpoint holds no state of a training,
            or parts of the config do not fit.
    """
    if plan.checkpoint is not None:
        assert plan.run is not None, "a training goes on in its folder"
        check_parts(plan.checkpoint, plan.run.last, "training")
    with world.together(), build_set(plan.config) as prepared:
        _check_set(prepared, plan.checksum)
        job = build_job(plan.config, prepared, plan.split, world)
        job = replace(job, notes=(*plan.notes, *job.notes))
        if plan.checkpoint is None:
            return job, job.fresh_progress()
        progress = restore(job, plan.checkpoint)
    return replace(job, notes=(*job.notes, *changed_threads(job, plan.checkpoint))), progress


def _refuse_contradictions(config: CfgNode, settings: Sequence[Any], folder: StrPath) -> int:
    """Refuse settings that differ from those of a run, and return its number of epochs, which may differ."""
    # setting the pairs in a copy checks and converts them like those of a new run
    settings = pair_up(settings)
    asked = read_config(None, settings)
    given = config.clone()
    given.defrost()
    errors = Errors()
    for key in dict.fromkeys(settings[::2]):
        set_value(given, key, get_value(asked, key))
        if key.lower() != EPOCHS and get_value(given, key) != get_value(config, key):
            errors.add(
                ValueError(
                    f"{folder} was started with {key} {get_value(config, key)}; "
                    f"resuming cannot make it {get_value(given, key)}"
                )
            )
    errors.raise_if_any("settings differ from those of the run")
    return given.train.epochs


def _check_set(prepared: PreparedSet, checksum: str) -> None:
    if prepared.checksum != checksum:
        raise ValueError(
            f"{prepared.path} is not the set that this run was started with: its checksum is "
            f"{prepared.checksum[:12]}…, not {checksum[:12]}…"
        )
