"""Files in folders and zip files, read without extraction.

The name of a file is a path with forward slashes that starts with the name of its folder or archive. Archives are often
packed without a folder, and then the subset is only in the name of the archive.
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
from mhsvm.text_file import encode

NOT_THERE = Rule("no such folder or zip file", "check the path")
NOT_A_ZIP = Rule("not a zip file, or a truncated one", "download it again, or extract it elsewhere and give the folder")
LEAVES_ARCHIVE = Rule("path that leaves the archive", "do not trust this archive; get it from the publisher")
ZIP_BOMB = Rule(
    "zip bomb, a member that unpacks to far more than its size",
    "do not trust this archive; if you know that it is safe, extract it and give the folder",
)
ENCRYPTED = Rule("encrypted member", "extract the archive with its password and give the folder")

# Twice the size of a 24-bit BMP at Pillow's pixel limit: no image that can be opened is larger.
LARGEST_FILE = 512 * 2**20
# Deflate reaches a ratio of 1032 on constant bytes. BMP masks come near it, but they are small.
LARGEST_RATIO, RATIO_MATTERS_FROM = 200, 32 * 2**20

_NOISE = re.compile(r"(^|/)(__MACOSX|\.[^/]*|Thumbs\.db|desktop\.ini)(/|$)", re.IGNORECASE)
# zipfile raises RuntimeError for an unknown compression method.
_READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error, LZMAError, RuntimeError)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source, with its name and size in bytes."""

    name: str
    num_bytes: int
    location: Path
    member: zipfile.ZipInfo | None = None
    archive: zipfile.ZipFile | None = field(default=None, compare=False)

    def read(self) -> bytes:
        """Read the content.

        Raises:
            ValueError: The file cannot be read, is larger than any image, or differs from its declaration.
        """
        if self.num_bytes > LARGEST_FILE:
            raise ValueError(f"{self.num_bytes:,} bytes; an image file has at most {LARGEST_FILE:,}")
        try:
            if self.archive is None or self.member is None:
                return self.location.read_bytes()
            with self.archive.open(self.member) as file:
                # A byte limit bounds the memory if the declared size is wrong; zipfile then finds a wrong checksum.
                return file.read(self.num_bytes + 1)
        except _READ_ERRORS as error:
            raise ValueError(f"cannot be read as it is declared: {error}") from error


@contextmanager
def open_sources(sources: Sequence[Path], problems: Problems) -> Iterator[list[SourceFile]]:
    """List the files of folders and zip files, and of the zip files inside those folders.

    Args:
        sources: Folders and zip files, in any mix.
        problems: Receives missing files, files that are no zip, encrypted members, members with a path outside the
            archive, and zip bombs.
    Yields:
        The files, without system files (`__MACOSX`, hidden files, `Thumbs.db`). They can be read until the block ends,
        also from several threads.
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
    """Lines "sha256  name": one per zip file over its bytes, and one over names and sizes of all other files."""
    archives = sorted({file.location for file in files if file.archive})
    with ThreadPoolExecutor() as pool:
        lines = [f"{digest}  {path.name}" for digest, path in zip(pool.map(_sha256, archives), archives, strict=True)]
    loose = "".join(sorted(f"{file.name}\t{file.num_bytes}\n" for file in files if not file.archive))
    if loose:
        lines.append(f"{hashlib.sha256(encode(loose)).hexdigest()}  names and sizes of the files in folders")
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
            # A broken link has no size; it is reported when it is read.
            num_bytes = location.stat().st_size if location.is_file() else 0
            files.append(SourceFile(name, num_bytes, location))
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Files in a folder and its subfolders, in ascending order. Links are followed, but each folder is read once."""
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
    # Without this, os.walk skips a folder that cannot be read, and its samples are lost.
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
