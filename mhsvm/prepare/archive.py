"""One view over folders and zip files: names and contents, never extracted.

A name is a path with forward slashes that starts with the name of the folder or archive in which the file was found,
because archives are often packed without a folder and then only their own name tells the subset.
"""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from mhsvm.prepare.problems import Problems, Rule

NOT_THERE = Rule("no such folder or zip file", "check the path")
NOT_A_ZIP = Rule("not a zip file, or a truncated one", "download it again, or extract it elsewhere and give the folder")
LEAVES_ARCHIVE = Rule("path that leaves the archive", "do not trust this archive; get it where the set is published")
ZIP_BOMB = Rule(
    "zip bomb, a member that unpacks to far more than it is",
    "do not trust this archive; if you know that it is sound, extract it and give the folder",
)
ENCRYPTED = Rule("encrypted member", "extract the archive with its password and give the folder")

# Twice what a 24-bit BMP of Pillow's pixel limit takes: no image that could be opened is larger.
LARGEST_FILE = 512 * 2**20
# Deflate reaches 1032 on constant bytes, and native BMP masks come near it, but they are small.
LARGEST_RATIO, RATIO_MATTERS_FROM = 200, 32 * 2**20

_NOISE = re.compile(r"(^|/)(__MACOSX|\.[^/]*|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
# RuntimeError is how zipfile says that it does not know a compression method.
_READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error, LZMAError, RuntimeError)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its name, its size in bytes, and how to read it."""

    name: str
    num_bytes: int
    location: Path
    member: zipfile.ZipInfo | None = None
    archive: zipfile.ZipFile | None = field(default=None, compare=False)

    def read(self) -> bytes:
        """The content.

        Raises:
            ValueError: It cannot be read, is larger than any image, or is not what the archive declares.
        """
        if self.num_bytes > LARGEST_FILE:
            raise ValueError(f"{self.num_bytes:,} bytes; an image file has at most {LARGEST_FILE:,}")
        try:
            if self.archive is None or self.member is None:
                return self.location.read_bytes()
            with self.archive.open(self.member) as file:
                # Asking for a number of bytes bounds the memory even where the declared size is a lie; zipfile then
                # finds that the checksum is wrong.
                return file.read(self.num_bytes + 1)
        except _READ_ERRORS as error:
            raise ValueError(f"cannot be read as it is declared: {error}") from error


@contextmanager
def open_sources(sources: Sequence[Path], problems: Problems) -> Iterator[list[SourceFile]]:
    """List the files of folders and zip files, and of the zip files inside those folders.

    Args:
        sources: Folders and zip files, in any mix.
        problems: Takes what is not there, not a zip, encrypted, leaves its archive or is a zip bomb.
    Yields:
        The files, without what operating systems leave behind (`__MACOSX`, hidden files, `Thumbs.db`). They can be
        read, from several threads at once, until the block ends.
    """
    with ExitStack() as archives:
        files: list[SourceFile] = []
        for source in sources:
            if source.is_dir():
                files += _list_folder(source, problems, archives)
            elif source.is_file():
                files += _list_archive(source, problems, archives)
            else:
                problems.add(NOT_THERE, str(source))
        yield files


def source_checksums(files: Sequence[SourceFile]) -> str:
    """Lines "sha256  name": of each zip file its bytes; of all loose files together their names and sizes."""
    archives = sorted({file.location for file in files if file.archive})
    with ThreadPoolExecutor() as pool:
        lines = [f"{digest}  {path.name}" for digest, path in zip(pool.map(_sha256, archives), archives, strict=True)]
    loose = "".join(sorted(f"{file.name}\t{file.num_bytes}\n" for file in files if not file.archive))
    if loose:
        lines.append(f"{hashlib.sha256(loose.encode()).hexdigest()}  names and sizes of the files in folders")
    return "\n".join(lines)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _list_folder(folder: Path, problems: Problems, archives: ExitStack) -> list[SourceFile]:
    files: list[SourceFile] = []
    root = folder.resolve().name
    for location in _walk(folder):
        name = str(PurePosixPath(root, *location.relative_to(folder).parts))
        if _NOISE.search(name.removeprefix(root)):
            continue
        if location.suffix.lower() == ".zip":
            files += _list_archive(location, problems, archives)
        else:
            # A broken link has no size, and is told when it is read.
            num_bytes = location.stat().st_size if location.is_file() else 0
            files.append(SourceFile(name, num_bytes, location))
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Files below a folder, in ascending order, through links, but no folder twice."""
    visited: set[Path] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = Path(parent).resolve()
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))


def _refuse(error: OSError) -> None:
    # os.walk would pass over a folder that cannot be read, and its samples would be lost.
    raise error


def _list_archive(path: Path, problems: Problems, archives: ExitStack) -> list[SourceFile]:
    try:
        archive = archives.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        problems.add(NOT_A_ZIP, f"{path}: {error}")
        return []
    files: list[SourceFile] = []
    for member in archive.infolist():
        # Some Windows programs write backslashes.
        inside = member.filename.replace("\\", "/")
        name = f"{path.name}/{inside}"
        rule = _broken_rule(member, inside)
        if rule is not None:
            problems.add(rule, f"{name}: {member.file_size:,} bytes from {member.compress_size:,}")
        elif not member.is_dir() and not _NOISE.search(inside):
            files.append(SourceFile(name, member.file_size, path, member, archive))
    return files


def _broken_rule(member: zipfile.ZipInfo, inside: str) -> Rule | None:
    if inside.startswith("/") or re.match(r"[A-Za-z]:", inside) or ".." in inside.split("/"):
        return LEAVES_ARCHIVE
    ratio = member.file_size / max(member.compress_size, 1)
    if member.file_size > LARGEST_FILE or (member.file_size > RATIO_MATTERS_FROM and ratio > LARGEST_RATIO):
        return ZIP_BOMB
    if member.flag_bits & 1:
        return ENCRYPTED
    return None
