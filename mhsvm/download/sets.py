"""Download the archives of a set into a folder."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from mhsvm.download.archives import DOWNLOADS, Archive, Download
from mhsvm.download.http import Refused, Unreachable, check_scheme
from mhsvm.download.partial import PartialFile
from mhsvm.download.transfer import Patience, Transfer
from mhsvm.download.verify import difference, verified_by
from mhsvm.folder_lock import FolderLock
from mhsvm.nearest import did_you_mean


@dataclass(frozen=True)
class Downloaded:
    """A file that is complete.

    Attributes:
        path: Its place.
        was_there: Whether it was complete before.
        verified_by: The checks that it has passed, such as "byte count and sha256".
    """

    path: Path
    was_there: bool
    verified_by: str


def download_set(
    name: str,
    out: str | Path,
    *,
    parts: Sequence[str] | None = None,
    accept_license: bool = False,
    url: Sequence[str] = (),
    mirror: str | None = None,
    timeout: float = 60,
    retries: int = 6,
    progress: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Downloaded]:
    """Download the official archives of a set, one after the other.

    A file gets its name when all its bytes are here and verified. Until then it is NAME.partial, from which the next
    call goes on, also after an interrupt. A file that is there is verified and kept.

    Args:
        name: A name from `list_downloads()`.
        out: Folder, which is made if needed.
        parts: Parts of the set, such as "train"; None takes all.
        accept_license: Whether the user accepts the license of the set.
        url: Other places of files, as NAME=URL, or one URL if there is one file.
        mirror: Address of a folder that has all the files under their names.
        timeout: Seconds without any byte after which a connection is given up.
        retries: Failed connections in a row after the first.
        progress: Show progress bars in a terminal.
        wait: Waits for a number of seconds between connections.
    Returns:
        An iterator that downloads each file when it is asked for it.
    Raises:
        ValueError: An argument is wrong, the license is not accepted, or no place of a file is known. The iterator: a
            file that is there is another one, or the server sends other bytes.
        OSError: The server or the network fails, or the disk has no space.
    """
    entry, out = DOWNLOADS[name], Path(out)
    archives = _with_places(select(entry, parts), url, mirror, entry)
    if not accept_license:
        raise ValueError(
            f"{name} has the license {entry.license}, see {entry.terms}: read it and give `accept_license`"
        )
    return _download_all(archives, out, Patience(timeout, retries, wait), progress=progress)


def _download_all(
    archives: Sequence[Archive], out: Path, patience: Patience, *, progress: bool
) -> Iterator[Downloaded]:
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock("a download") as lock:
        lock.hold(out)
        _check_space(archives, out)
        for archive in archives:
            yield _download(archive, out / archive.name, patience, progress=progress)


def select(entry: Download, parts: Sequence[str] | None) -> list[Archive]:
    """The files of the parts of a set, of all for None.

    Raises:
        ValueError: There is no such part.
    """
    for part in parts or ():
        if part not in entry.parts:
            known = ", ".join(entry.parts)
            raise ValueError(f"unknown part {part!r}; {entry.title} has {known}{did_you_mean(part, entry.parts)}")
    return [archive for part, files in entry.parts.items() if parts is None or part in parts for archive in files]


def _with_places(archives: Sequence[Archive], url: Sequence[str], mirror: str | None, entry: Download) -> list[Archive]:
    """The files with the places that the user gives instead of theirs."""
    given = _named_places(archives, url)
    placed = []
    for archive in archives:
        if archive.name in given:
            archive = replace(archive, urls=(given[archive.name],))
        elif mirror is not None:
            archive = replace(archive, urls=(f"{mirror.rstrip('/')}/{archive.name}",))
        if not archive.urls:
            raise ValueError(f"{entry.manual} To download {archive.name} from a place you know, give its `url`")
        for place in archive.urls:
            try:
                check_scheme(place)
            except Refused as error:
                raise ValueError(str(error)) from error
        placed.append(archive)
    return placed


def _named_places(archives: Sequence[Archive], url: Sequence[str]) -> Mapping[str, str]:
    names = [archive.name for archive in archives]
    given = {}
    for text in url:
        name, mark, place = text.partition("=")
        if "://" in name or not mark:
            name, place = (names[0] if len(names) == 1 else ""), text
        if name not in names:
            raise ValueError(f"`url` is NAME=URL, where NAME is {' or '.join(names)}; received {text!r}")
        given[name] = place
    return given


def _check_space(archives: Sequence[Archive], out: Path) -> None:
    """Make sure that the files of known size have space, before the first byte."""
    missing = [archive for archive in archives if not (out / archive.name).exists()]
    sizes = [(archive.num_bytes or 0) - PartialFile(out / archive.name).size() for archive in missing]
    needed, free = sum(max(size, 0) for size in sizes), shutil.disk_usage(out).free
    if needed > free:
        raise OSError(
            f"the files need {needed / 2**30:.2f} GiB more, and {free / 2**30:.2f} GiB are free in {out}: make space, "
            "choose another folder, or take some of the `parts` only"
        )


def _download(archive: Archive, path: Path, patience: Patience, *, progress: bool) -> Downloaded:
    if path.exists():
        with _bar(f"verify {archive.name}", progress=progress) as report:
            wrong = difference(path, archive, report)
        if wrong is not None:
            raise ValueError(f"{path} is there and is another file: {wrong}. Move it away")
        return Downloaded(path, True, verified_by(archive))
    partial = PartialFile(path)
    is_joined = _transfer(archive, partial, patience, progress=progress)
    wrong = _verify(archive, partial, progress=progress)
    if wrong is not None and is_joined:
        # the first bytes may have been those of another version
        _transfer(archive, partial, patience, progress=progress)
        wrong = _verify(archive, partial, progress=progress)
    if wrong is not None:
        raise ValueError(
            f"{archive.urls[0]} has sent another file: {wrong}. Nothing is kept of it: try again, or use another place "
            "with `mirror`"
        )
    partial.complete()
    return Downloaded(path, False, verified_by(archive))


def _transfer(archive: Archive, partial: PartialFile, patience: Patience, *, progress: bool) -> bool:
    """Get a file from the first of its places that gives it; return whether it is made of several answers."""
    failed = []
    for place in archive.urls:
        with _bar(archive.name, progress=progress) as report:
            is_verified = bool(archive.checksum[0])
            try:
                return Transfer(place, partial, archive.num_bytes, is_verified, patience, report).run()
            except (Refused, Unreachable) as error:
                failed.append(f"{place} {error}")
    reasons = "; ".join(failed)
    raise OSError(f"{archive.name} cannot be downloaded: {reasons}. Other places are given by `url` or `mirror`")


def _verify(archive: Archive, partial: PartialFile, *, progress: bool) -> str | None:
    """Describe how the downloaded file differs, and remove it then."""
    with _bar(f"verify {archive.name}", progress=progress) as report:
        wrong = difference(partial.path, archive, report)
    if wrong is not None:
        partial.remove()
    return wrong


@contextmanager
def _bar(label: str, *, progress: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar in bytes, and the function that moves it."""
    hidden = None if progress else True
    with tqdm(desc=label, unit="B", unit_scale=True, unit_divisor=1024, disable=hidden) as bar:

        def report(num_bytes: int, total: int | None) -> None:
            if not bar.disable:
                # bytes that are here already are no speed
                bar.initial = bar.initial if bar.n else num_bytes
                bar.total = total
                bar.update(num_bytes - bar.n)

        yield report
