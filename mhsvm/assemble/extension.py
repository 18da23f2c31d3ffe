"""More epochs for a run than it was started with, or fewer."""

from collections.abc import Callable

from yacs.config import CfgNode

from mhsvm.training.run_folder import RunFolder

KEY = "train.epochs"


def extend(config: CfgNode, epochs: int, *, done: int, run: RunFolder) -> tuple[CfgNode, tuple[str, ...]]:
    """Give the config of a run another number of epochs.

    Nothing else changes: the learning rates of the epochs that are done would be the same in a longer run.

    Args:
        config: The config of the run.
        epochs: Number of epochs of the whole training.
        done: Epochs that are done.
        run: The run, for messages.
    Returns:
        The config, and sentences for the log: the change, and the learning rate in further epochs.
    Raises:
        ValueError: More epochs are done, or the schedule ends at a learning rate of 0 before.
    """
    before = config.train.epochs
    if epochs < done:
        raise ValueError(f"{run.path} has {done} epochs done: {KEY} is at least {done} for it, not {epochs}")
    rule = _BEYOND.get(config.schedule.name)
    note = rule(config.schedule[config.schedule.name], epochs, run) if rule is not None else ""
    extended = config.clone()
    extended.defrost()
    extended.train.epochs = epochs
    extended.freeze()
    verb = "extended" if epochs > before else "shortened"
    return extended, (f"{verb} from {before} to {epochs} epochs, {done} of them done", *([note] if note else []))


def _beyond_cosine(node: CfgNode, epochs: int, run: RunFolder) -> str:
    if epochs <= node.T_max:
        return ""
    return (
        f"the cosine of the learning rate depends on schedule.CosineAnnealingLR.T_max {node.T_max}, not on the number "
        f"of epochs: it is lowest after {node.T_max} and {3 * node.T_max} epochs, and rises in between"
    )


def _beyond_warmup_cosine(node: CfgNode, epochs: int, run: RunFolder) -> str:
    if epochs <= node.T_max:
        return ""
    if node.eta_min == 0:
        raise ValueError(
            f"the learning rate of {run.path} is 0 from epoch schedule.WarmupCosineLR.T_max {node.T_max} on, so that "
            f"more epochs train nothing: extend it to {KEY} {node.T_max} at most, or start a new run from its weights "
            f"with model.weights {run.best} and a schedule of its own"
        )
    return f"the learning rate stays at schedule.WarmupCosineLR.eta_min {node.eta_min:g} after epoch {node.T_max}"


# Schedules that have an end of their own -> the note, or the error, about epochs after it.
_BEYOND: dict[str, Callable[[CfgNode, int, RunFolder], str]] = {
    "CosineAnnealingLR": _beyond_cosine,
    "WarmupCosineLR": _beyond_warmup_cosine,
}
