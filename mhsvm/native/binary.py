"""The C engine in the wheel, compiled for each platform by `scripts/wheel_with_engine.py`; a checkout has none.

`binaries/SHA256SUMS` holds the checksum of the source that they were compiled from, and one for each file.
"""

import hashlib
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from mhsvm.text_file import read_text, write_text

SOURCE = Path(__file__).with_name("ultralight.c")
FOLDER = Path(__file__).with_name("binaries")
CHECKSUMS = "SHA256SUMS"
_OTHER_NAMES = {"AMD64": "x86_64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Binary:
    """One compiled library.

    Attributes:
        file: Its name.
        system: The value of `platform.system()`.
        machine: "x86_64" or "arm64".
        avx2: Whether the processor has to have AVX2 and FMA.
    """

    file: str
    system: str
    machine: str
    avx2: bool = False


# of those that run on a machine, the first is the fastest
BINARIES = (
    Binary("linux-x86_64-avx2.so", "Linux", "x86_64", avx2=True),
    Binary("linux-x86_64.so", "Linux", "x86_64"),
    Binary("linux-arm64.so", "Linux", "arm64"),
    Binary("macos-x86_64-avx2.dylib", "Darwin", "x86_64", avx2=True),
    Binary("macos-x86_64.dylib", "Darwin", "x86_64"),
    Binary("macos-arm64.dylib", "Darwin", "arm64"),
    Binary("windows-x86_64-avx2.dll", "Windows", "x86_64", avx2=True),
    Binary("windows-x86_64.dll", "Windows", "x86_64"),
)


def find_binary() -> Path | None:
    """The file for this machine, or None if there is none.

    Raises:
        ValueError: It is another file than the one that was compiled from this source.
    """
    if not (FOLDER / CHECKSUMS).is_file() or sys.maxsize < 2**32:
        return None
    place = platform.system(), _OTHER_NAMES.get(platform.machine(), platform.machine())
    fitting = [binary for binary in BINARIES if (binary.system, binary.machine) == place]
    chosen = next((binary for binary in fitting if not binary.avx2 or has_avx2()), None)
    if chosen is None:
        return None
    path = FOLDER / chosen.file
    expected = read_checksums(FOLDER / CHECKSUMS)
    if expected.get("source") != source_checksum():
        raise ValueError(f"the files in {FOLDER} were compiled from another version of the source")
    if expected.get(chosen.file) != hashlib.sha256(path.read_bytes()).hexdigest():
        raise ValueError(f"{path} is damaged: install the package again")
    return path


def write_checksums(folder: Path) -> None:
    """Record the source and the files of a folder of binaries."""
    checksums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    lines = [f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items())]
    write_text(folder / CHECKSUMS, "".join([f"{source_checksum()}  source\n", *lines]))


def read_checksums(path: Path) -> dict[str, str]:
    """Checksums by name.

    Raises:
        ValueError: A line has another form.
    """
    pairs = [line.split() for line in read_text(path).strip().split("\n")]
    return {name: checksum for checksum, name in pairs}


def source_checksum() -> str:
    """sha256 of the source and its header, in hex."""
    return hashlib.sha256(SOURCE.read_bytes() + b"\0" + SOURCE.with_suffix(".h").read_bytes()).hexdigest()


def has_avx2() -> bool:
    """Whether this processor has AVX2 and FMA."""
    # torch asks the processor on every system; imported late, because it takes a second
    from torch.backends import cpu

    return cpu.get_cpu_capability() in ("AVX2", "AVX512")
