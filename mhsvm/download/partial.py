"""A file while it is downloaded: its bytes in NAME.partial, and the version that they are of in NAME.partial.json."""

from dataclasses import asdict, dataclass
from pathlib import Path

from mhsvm.text_file import read_json, write_json


@dataclass(frozen=True)
class FileVersion:
    """The version of a file on a server.

    Attributes:
        url: Its place.
        validator: Its ETag or date, by which the server recognizes the version; "" if it gives none.
        num_bytes: Its size; None if the server does not state it.
    """

    url: str
    validator: str
    num_bytes: int | None


class PartialFile:
    """The bytes of a file that are here so far.

    Args:
        final: Path of the file when it is complete.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.path = final.with_name(f"{final.name}.partial")
        self._version = final.with_name(f"{final.name}.partial.json")

    def size(self) -> int:
        """Number of bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self) -> FileVersion | None:
        """The version of the bytes; None if it is not known."""
        if not self._version.is_file():
            return None
        try:
            return FileVersion(**read_json(self._version))
        except (ValueError, TypeError):
            # a damaged file of a few bytes, from which nothing but this is read
            return None

    def set_version(self, version: FileVersion) -> None:
        """Record the version, before its bytes."""
        write_json(self._version, asdict(version))

    def remove(self) -> None:
        """Remove the bytes and their version."""
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def complete(self) -> None:
        """Give the file its final name."""
        self.path.replace(self.final)
        self._version.unlink(missing_ok=True)
