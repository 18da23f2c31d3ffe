"""Files in folders and in zip files, read without extraction."""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from lzma import LZMAError
from pathlib import Path

from mhsvm.prepare.problems import Problems, Rule
from mhsvm.text_file import encode

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

# Hidden files, and those of operating systems and network drives.
_NOISE = re.compile(
    r"(^|/)(__MACOSX|\.[^/]*|Thumbs\.db|desktop\.ini|@eaDir|\$RECYCLE\.BIN|System Volume Information)(/|$)",
    re.IGNORECASE,
)
_IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8")
# zipfile raises RuntimeError for an unknown compression method.
_READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error, LZMAError, RuntimeError)


@dataclass(frozen=True)
class SourceFile:
    """A file of a source.

    Attributes:
        name: Path with forward slashes that starts with the name of its folder or archive. Bytes of a name that are not
            UTF-8 are written as %FF.
        num_bytes: Size.
        location: Path of the file, or of its archive.
        member, archive: Its place in a zip file.
    """

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
                if self.location.exists() and not self.location.is_file():
                    # a named pipe would wait for its writer
                    raise ValueError("not a file")
                return self.location.read_bytes()
            with self.archive.open(self.member) as file:
                # A byte limit bounds the memory if the declared size is wrong; zipfile then finds a wrong checksum.
                return file.read(self.num_bytes + 1)
        except _READ_ERRORS as error:
            raise ValueError(f"cannot be read as it is declared: {error}") from error

    def looks_like_image(self) -> bool:
        """Whether the file starts like an image; browsers, editors and DICOM exports give some other names."""
        if self.member is None and not self.location.is_file():
            return False
        try:
            opened = self.location.open("rb") if self.archive is None else self.archive.open(self.member or "")
            with opened as file:
                start = file.read(132)
        except _READ_ERRORS:
            return False
        is_bmp = start[:2] == b"BM" and int.from_bytes(start[2:6], "little") == self.num_bytes
        is_heif = start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"heic", b"heix", b"mif1")
        is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
        return start[128:] == b"DICM" or is_bmp or is_heif or is_webp or start.startswith(_IMAGE_STARTS)

    def state(self) -> list[int]:
        """Size, and time of the last change or, in a zip file, the checksum; empty if the file is gone."""
        if self.member is not None:
            return [self.num_bytes, self.member.CRC]
        try:
            status = self.location.stat()
        except OSError:
            return []
        return [status.st_size, status.st_mtime_ns]


def source_checksums(files: Sequence[SourceFile]) -> str:
    """Lines "sha256  name": one per zip file over its bytes, and one over names and sizes of all other files."""
    archives = sorted({file.location for file in files if file.archive})
    with ThreadPoolExecutor() as pool:
        lines = [
            f"{digest}  {readable(path.name)}"
            for digest, path in zip(pool.map(_sha256, archives), archives, strict=True)
        ]
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


def is_noise(name: str) -> bool:
    """Whether a path is, or is in, a hidden file or folder or one of the operating system."""
    return _NOISE.search(name) is not None


def readable(name: str) -> str:
    """The name of a file as text that every file format takes: bytes that are not UTF-8 are written as %FF."""
    return re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", name)


def list_archive(path: Path, problems: Problems, archives: ExitStack) -> list[SourceFile]:
    """List the members of a zip file.

    Args:
        path: The zip file.
        problems: Receives a file that is no zip, encrypted members, members with a path outside the archive, and bombs.
        archives: Closes the file.
    """
    try:
        archive = archives.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        problems.add(NOT_A_ZIP, f"{readable(str(path))}: {error}")
        return []
    files: list[SourceFile] = []
    for member in archive.infolist():
        # Some Windows programs write backslashes.
        inside = readable(member.filename.replace("\\", "/"))
        name = f"{readable(path.name)}/{inside}"
        rule = _broken_rule(member, inside)
        if rule is not None:
            problems.add(rule, f"{name}: {member.file_size:,} bytes from {member.compress_size:,}")
        elif not member.is_dir() and not is_noise(inside):
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
