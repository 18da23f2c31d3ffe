"""Trained weights that come with the package: our checkpoints in the folder weights/, each with a row in its index."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsvm.files import StrPath
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.nearest import did_you_mean
from mhsvm.text_file import read_table

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Pretrained:
    """A row of the index.

    Attributes:
        name: Unique name, such as "isic2017-wu-sorted".
        model: Name of the network.
        data: Data set of the training.
        split, split_hash: Split of the data set, and its hash.
        license: License of the data.
        sha256: Checksum of the checkpoint.
    """

    name: str
    model: str
    data: str
    split: str
    split_hash: str
    license: str
    sha256: str

    @property
    def path(self) -> Path:
        """The checkpoint."""
        return FOLDER / f"{self.name}.pt"


def list_pretrained(model: str | None = None) -> tuple[str, ...]:
    """Names of the weights that come with the package, all or those of one network."""
    return tuple(row.name for row in read_index() if model in (None, row.model))


def find_pretrained(name: str, *, model: str | None = None) -> Pretrained:
    """Look up weights by name and check their file.

    Args:
        name: From `list_pretrained()`.
        model: The network that the weights must belong to; None accepts any.
    Raises:
        ValueError: The name is unknown, the weights belong to another network, or the checksum of the file is wrong.
    """
    rows = {row.name: row for row in read_index()}
    if name not in rows:
        known = ", ".join(list_pretrained(model)) or "none"
        hint = did_you_mean(name, list_pretrained(model))
        raise ValueError(f"unknown weights {name!r}; known{f' for {model}' if model else ''}: {known}{hint}")
    row = rows[name]
    if model not in (None, row.model):
        known = ", ".join(list_pretrained(model)) or "none"
        raise ValueError(f"the weights {name!r} belong to {row.model}, not to {model}; known for {model}: {known}")
    found = hashlib.sha256(row.path.read_bytes()).hexdigest() if row.path.is_file() else "missing"
    if found != row.sha256:
        raise ValueError(
            f"{row.path} is not the file of this package (sha256 {found[:12]}, not {row.sha256[:12]}): "
            "install the package again"
        )
    return row


def find_checkpoint(path: StrPath) -> Path:
    """Find a checkpoint by its path, or by a name from `list_pretrained()` if there is no such file.

    Raises:
        FileNotFoundError: There is neither; the names are listed.
    """
    if Path(path).exists():
        return Path(path)
    known = list_pretrained()
    if str(path) in known:
        return find_pretrained(str(path)).path
    raise FileNotFoundError(
        f"there is no checkpoint {path}, and no weights of this name come with mhsvm; known: "
        f"{', '.join(known) or 'none'}{did_you_mean(str(path), known)}"
    )


def read_pretrained(name: str, *, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a checkpoint, and the keywords with which `create_model` builds its network.

    Raises:
        ValueError: See `find_pretrained`.
    """
    content = read_checkpoint(find_pretrained(name, model=model).path)
    node = content["config"]["model"]
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in node[model].items()}
    return content, arguments


def read_index() -> list[Pretrained]:
    """All rows of the index."""
    return [Pretrained(**row) for row in read_table(FOLDER / "index.csv").rows]
