"""State of a run in a sweep, read from its folder, and the next command."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mhsvm.assemble import read_config
from mhsvm.evaluation.summary import read_summary
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.sweep.check import SetToTest
from mhsvm.sweep.grid import GridRun
from mhsvm.sweep.schedule import Command
from mhsvm.text_file import read_json_lines
from mhsvm.training.checkpoint import epochs_done
from mhsvm.training.run_folder import RunFolder

_REMEDY = "remove its folder, and the test is made again"
_MHSVM = (sys.executable, "-m", "mhsvm")


@dataclass(frozen=True)
class RunState:
    """A run with its folder.

    Attributes:
        run: The run.
        config_path: Config file of the sweep.
        folder: Folder of the sweep.
        test_sets: Sets to test on.
    """

    run: GridRun
    config_path: Path
    folder: Path
    test_sets: tuple[SetToTest, ...]

    @property
    def files(self) -> RunFolder:
        return RunFolder(self.folder / self.run.name)

    def check_config(self) -> None:
        """Check that an existing run in the folder has the same settings.

        Raises:
            ValueError: The settings differ.
        """
        if not self.files.last.is_file():
            return
        recorded, own = read_config(self.files.config), self.run.config.clone()
        if not own.data.size:
            # a run records the size of its set
            own.defrost()
            own.data.size = recorded.data.size
            own.freeze()
        if recorded != own:
            raise ValueError(
                f"{self.files.path} was made with other settings than this sweep's (see its config.yaml): "
                "choose another one with `folder`, or remove that one"
            )

    def next_command(self) -> Command | None:
        """Return the command that starts or resumes the training, then each test; None at the end."""
        if not self.is_trained():
            return Command("training", [*_MHSVM, "train", *self._training_arguments()])
        for test_set in self.test_sets:
            if self.read_summary(test_set) is None:
                arguments = ["--d", test_set.argument, "--p", str(self.files.best), "--out", str(self._test(test_set))]
                node = self.run.config.run
                plugins = ["--plugins", *node.plugins] if node.plugins else []
                return Command(
                    f"testing on {test_set.name}", [*_MHSVM, "test", *arguments, "--device", node.device, *plugins]
                )
        return None

    def is_trained(self) -> bool:
        """Whether the last epoch is complete and saved."""
        epochs = self.run.config.train.epochs
        # counting lines is fast; the checkpoint is read only if the run seems complete
        if not self.files.metrics.is_file() or len(read_json_lines(self.files.metrics)) < epochs:
            return False
        checkpoint = read_checkpoint(self.files.last)
        return epochs_done(checkpoint, self.files.last) >= epochs

    def read_summary(self, test_set: SetToTest) -> dict | None:
        """Read the test summary of the best checkpoint on a set; None if checkpoint or set have changed."""
        path = self._test(test_set) / "summary.json"
        if not path.is_file():
            return None
        summary = read_summary(path, remedy=_REMEDY)
        try:
            tested = summary["checkpoint"]["sha256"], summary["protocol"]["set"]["checksum"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} does not say which checkpoint and set were tested: {_REMEDY}") from error
        current = hashlib.sha256(self.files.best.read_bytes()).hexdigest(), test_set.checksum
        return summary if tested == current else None

    def _training_arguments(self) -> Sequence[str]:
        if self.files.last.is_file():
            return ["--resume", str(self.files.path)]
        return ["--config", str(self.config_path), *self.run.settings]

    def _test(self, test_set: SetToTest) -> Path:
        return self.files.path / "tests" / test_set.name
