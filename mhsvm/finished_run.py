"""A finished training, in memory or in a run folder."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from mhsvm.assemble import Plan, Trained, load_trained
from mhsvm.assemble.networks import choose_backend
from mhsvm.training.job import Job
from mhsvm.training.record import MemoryRecord
from mhsvm.training.run_folder import RunFolder


class Run:
    """A finished training.

    Attributes:
        config: Its settings.
        history: The metrics of each epoch, such as `train_loss`, `val_loss` and `val_dsc`; None where one is not
            defined, because no class occurs in the validation part.
        folder: The run folder; None if nothing was written.
    """

    def __init__(
        self, config: CfgNode, history: Sequence[dict], folder: Path | None, load: Callable[[], Trained]
    ) -> None:
        self.config = config
        self.history = tuple(history)
        self.folder = folder
        self._load = load

    @cached_property
    def trained(self) -> Trained:
        """The network with the weights of its best epoch, and the record of its training."""
        return self._load()

    @property
    def model(self) -> nn.Module:
        """The network with the weights of its best epoch (lowest validation loss), in evaluation mode."""
        return self.trained.model


def finished_run(plan: Plan, job: Job, history: Sequence[dict], record: MemoryRecord | RunFolder) -> Run:
    """The run of a training that has ended, with the weights that its record keeps."""
    if isinstance(record, RunFolder):
        return Run(plan.config, history, record.path, lambda: load_trained(record.best, device=job.device))
    if record.best is not None:
        job.kept_model.load_state_dict(record.best)
    model = job.kept_model.eval()
    trained = Trained(
        path=None,
        model=model,
        config=plan.config,
        published=False,
        data=job.description["data"],
        backend=choose_backend(plan.config),
    )
    return Run(plan.config, history, None, lambda: trained)
