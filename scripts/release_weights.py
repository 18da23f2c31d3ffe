"""Add the weights of a training to the package: `python scripts/release_weights.py --help`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

# works from a clone that is not installed, too
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mhsvm.cli.main import run
from mhsvm.cli.parser import CommandParser
from mhsvm.files import replace_when_complete
from mhsvm.text_file import write_table

if TYPE_CHECKING:
    from mhsvm.models import pretrained

# All parts of a checkpoint except those that only resuming needs.
_PARTS = ("format", "schema", "config", "data", "version", "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Add the weights of a training to mhsvm/models/weights, for `create_model(pretrained=NAME)`."""
    parser = CommandParser(
        prog="python scripts/release_weights.py",
        description=main.__doc__,
        examples=("results/wu-sorted/checkpoints/best.pt --name isic2017-wu-sorted --licence CC-0",),
    )
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="checkpoints/best.pt of a run")
    parser.add_argument("--name", required=True, help="such as isic2017-wu-sorted")
    parser.add_argument("--licence", required=True, help="license of the training data, such as CC-0")
    arguments = parser.parse_args(argv)
    row = add_pretrained(arguments.checkpoint, name=arguments.name, license=arguments.licence)
    print(f"{row.path}: {row.model}, trained on {row.data}, {row.split} ({row.split_hash[:12]}), {arguments.licence}")
    return 0


def add_pretrained(checkpoint: Path, *, name: str, license: str) -> pretrained.Pretrained:
    """Add a checkpoint to the package, without the parts that only resuming needs; a row of this name is replaced.

    Args:
        checkpoint: `checkpoints/best.pt` of a run.
        name: Name of the weights, and of their file.
        license: License of the training data.
    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: It is not a checkpoint of a training with this package, or the name is not a file name.
    """
    import torch

    from mhsvm.models import pretrained
    from mhsvm.models.checkpoint_file import read_checkpoint

    content = read_checkpoint(checkpoint)
    missing = [part for part in _PARTS if part not in content]
    if missing:
        raise ValueError(f"{checkpoint} is not a checkpoint of a training with mhsvm: it has no {', '.join(missing)}")
    if not name or Path(name).name != name:
        raise ValueError(f"weights have names like isic2017-wu-sorted, without folders; received {name!r}")
    path = pretrained.FOLDER / f"{name}.pt"
    with replace_when_complete(path) as partial:
        torch.save({part: content[part] for part in _PARTS}, partial)
    values = {
        "name": name,
        "model": content["config"]["model"]["name"],
        "data": content["data"]["name"],
        "split": content["data"]["split"],
        "split_hash": content["data"]["split_hash"],
        "license": license,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    row = pretrained.Pretrained(**values)
    others = [other for other in pretrained.read_index() if other.name != name]
    _write_index(sorted([*others, row], key=lambda each: each.name))
    return row


def _write_index(rows: Sequence[pretrained.Pretrained]) -> None:
    from mhsvm.models import pretrained

    path = pretrained.FOLDER / "index.csv"
    write_table(path, [field.name for field in fields(pretrained.Pretrained)], map(astuple, rows))


if __name__ == "__main__":
    raise SystemExit(run(main))
