"""The transfer of one file, which goes on where it was broken off."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPResponse

from mhsvm.download.http import Interrupted, Refused, Unreachable, WrongRange, network, request
from mhsvm.download.partial import FileVersion, PartialFile
from mhsvm.files import full_disk_named

_CHUNK = 2**18
# A connection that brings so much is no failed one, however it ends.
_PROGRESS = 2**20
_LONGEST_PAUSE = 60


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout: Seconds without any byte after which a connection is given up.
        retries: Failed connections in a row after the first.
        wait: Waits for seconds.
    """

    timeout: float
    retries: int
    wait: Callable[[float], None]


@dataclass(frozen=True)
class Transfer:
    """The transfer of a file to a `PartialFile`.

    Attributes:
        url: The place.
        partial: The bytes so far.
        num_bytes: Size of the file; None if only the server knows it.
        is_verified: Whether a checksum of the file is known. Then bytes of another place, or of an unknown version, are
            a start that can be continued: the checksum decides in the end.
        patience: How long to wait.
        report: Called with the number of bytes that are here, and with that of the file or None.
    """

    url: str
    partial: PartialFile
    num_bytes: int | None
    is_verified: bool
    patience: Patience
    report: Callable[[int, int | None], None]

    def run(self) -> bool:
        """Get the bytes that are missing.

        Returns:
            Whether the file is made of several answers, which may be of different versions.
        Raises:
            Refused: The server does not give the file.
            Unreachable: The server or network has failed too often. The bytes so far are kept.
            OSError: The disk is full.
        """
        failures, is_joined = 0, self.partial.size() > 0
        while not self._is_complete():
            before = self.partial.size()
            is_joined = is_joined or before > 0
            try:
                self._connect()
                break
            except WrongRange:
                # the bytes are not of this file
                self.partial.remove()
                failures += 1
                error: OSError = Interrupted("has no such part of the file")
            except Interrupted as interrupted:
                error = interrupted
                failures = 0 if self.partial.size() - before >= _PROGRESS else failures + 1
            if failures > self.patience.retries:
                raise Unreachable(
                    f"{error}, {failures} times in a row. {self.partial.size():,} bytes are kept: run the "
                    "command again to go on"
                ) from error
            pause = error.wait if isinstance(error, Interrupted) else None
            self.patience.wait(min(_LONGEST_PAUSE, 2.0**failures) if pause is None else pause)
        return is_joined

    def _is_complete(self) -> bool:
        """Whether all bytes are here; more bytes than the file has are removed."""
        version = self.partial.version()
        size, expected = self.partial.size(), self.num_bytes
        if expected is None and version is not None:
            expected = version.num_bytes
        if expected is not None and size > expected:
            self.partial.remove()
        return expected is not None and size == expected and expected > 0

    def _connect(self) -> None:
        """Ask for the missing bytes once, and write those that come."""
        version, start = self.partial.version(), self.partial.size()
        validator = version.validator if version is not None and version.url == self.url else ""
        if not validator and not self.is_verified:
            # the rest could be of another version
            start = 0
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            headers["If-Range"] = validator
        with request(self.url, headers, timeout=self.patience.timeout) as answer:
            start, total = _bounds(answer, start)
            self._check(answer, total)
            self.partial.set_version(FileVersion(self.url, _validator(answer), total))
            self._write(answer, start, total)

    def _check(self, answer: HTTPResponse, total: int | None) -> None:
        encoding = answer.headers.get("Content-Encoding", "")
        if encoding not in ("", "identity"):
            raise Refused(f"sends the file in another form (Content-Encoding {encoding}), which cannot be verified")
        if total is not None and self.num_bytes not in (None, total):
            raise Refused(
                f"has {total:,} bytes, and the file has {self.num_bytes:,}: it is another version, or another page"
            )
        if answer.headers.get_content_type() == "text/html" and not self.partial.final.name.endswith(".html"):
            raise Refused("sends a web page in place of the file: it may require a login")

    def _write(self, answer: HTTPResponse, start: int, total: int | None) -> None:
        if total is not None:
            free = shutil.disk_usage(self.partial.path.parent).free
            if total - start > free:
                raise OSError(
                    f"{self.partial.final.name} has {total - start:,} more bytes, and {free:,} are free in "
                    f"{self.partial.path.parent}: make space, or choose another folder"
                )
        size = start
        with full_disk_named(self.partial.path), self.partial.path.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            self.report(size, total)
            while True:
                with network():
                    # unlike read, it returns the bytes that come before a timeout
                    content = answer.read1(_CHUNK)
                if not content:
                    break
                size += len(content)
                if self.num_bytes is not None and size > self.num_bytes:
                    self.partial.remove()
                    raise Refused(f"sends more than the {self.num_bytes:,} bytes of the file")
                file.write(content)
                self.report(size, total)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and size < total:
            raise Interrupted(f"ends after {size:,} of {total:,} bytes")


def _bounds(answer: HTTPResponse, start: int) -> tuple[int, int | None]:
    """The first byte of an answer, and the size of the file if it is stated.

    Raises:
        WrongRange: It is another part than the one that was asked for.
    """
    if answer.status == 200:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != start:
        raise WrongRange("sends another part of the file")
    return start, int(found[3]) if found[3].isdecimal() else None


def _validator(answer: HTTPResponse) -> str:
    """The mark by which a server recognizes the version; weak ETags are none for parts of files."""
    etag = answer.headers.get("ETag", "")
    return etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")
