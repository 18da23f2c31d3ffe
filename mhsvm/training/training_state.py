"""The state of a training in a checkpoint, and its exact restoration."""

import torch
from torch import Tensor

from mhsvm.training.job import Job, Progress
from mhsvm.training.optimizers import load_optimizer_state


def checkpoint_content(job: Job, progress: Progress) -> dict:
    """Everything that testing and resuming need; if weights are averaged, the average is tested."""
    random_states, *others = job.world.gather(_random_states(job.device))
    return {
        **job.description,
        "model": job.kept_model.state_dict(),
        "training": {
            "model": None if job.kept_model is job.model else job.model.state_dict(),
            "optimizer": job.optimizer.state_dict(),
            "schedule": job.schedule.state_dict(),
            "random_states": random_states,
            **({"other_random_states": others} if others else {}),
            "progress": dict(vars(progress)),
            "threads": torch.get_num_threads(),
        },
    }


def changed_threads(job: Job, checkpoint: dict) -> tuple[str, ...]:
    """A note for the log if a training on the processor goes on with another number of threads than before.

    Sums are split among threads, and their rounding depends on it. Checkpoints of older versions have no number.
    """
    before, now = checkpoint["training"].get("threads"), torch.get_num_threads()
    if job.device.type != "cpu" or before in (None, now):
        return ()
    number = f"{now} thread" if now == 1 else f"{now} threads"
    return (f"resumed with {number} instead of {before}: the last digits of losses may differ",)


def restore(job: Job, checkpoint: dict) -> Progress:
    """Restore a job to the position of a checkpoint."""
    training = checkpoint["training"]
    job.kept_model.load_state_dict(checkpoint["model"])
    if training.get("model") is not None:
        job.model.load_state_dict(training["model"])
    load_optimizer_state(job.optimizer, training["optimizer"])
    # torch marks an optimizer that has stepped outside of its state, and a schedule warns without that mark
    job.optimizer._opt_called = True  # type: ignore[attr-defined]  # torch sets it in `step` and does not declare it
    # milestones are a setting, not a state; the checkpoint holds them as a plain dictionary
    job.schedule.load_state_dict({k: v for k, v in training["schedule"].items() if k != "milestones"})
    recorded = [training["random_states"], *training.get("other_random_states", ())]
    # an additional process keeps the state of its seed
    if job.world.rank < len(recorded):
        _set_random_states(recorded[job.world.rank], job.device)
    return Progress(**training["progress"])


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
