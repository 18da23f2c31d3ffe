"""Build the wheel with the C engine compiled for each platform: `python scripts/wheel_with_engine.py --help`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# works from a clone that is not installed, too
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mhsvm.cli.main import run
from mhsvm.cli.parser import CommandParser
from mhsvm.native.binary import BINARIES, FOLDER, SOURCE, Binary, write_checksums
from mhsvm.native.library import FLAGS

ROOT = Path(__file__).resolve().parents[1]
_TARGETS = {
    ("Linux", "x86_64"): "x86_64-linux-gnu",
    ("Linux", "arm64"): "aarch64-linux-gnu",
    ("Darwin", "x86_64"): "x86_64-macos.11.0",
    ("Darwin", "arm64"): "aarch64-macos.11.0",
    ("Windows", "x86_64"): "x86_64-windows-gnu",
}
# the engine calls memset and memcpy only, which every process on Linux has: no version of a C library is needed
_SYSTEM_FLAGS = {"Linux": ("-nostdlib",), "Darwin": (), "Windows": ()}
COMPILER = ("-m", "ziglang", "cc")
_TIMEOUT_S = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Compile the C engine for Linux, macOS and Windows by ziglang, and build one wheel with all of them.

    Needs `pip install ziglang build`. The same version of ziglang gives the same bytes.
    """
    parser = CommandParser(
        prog="python scripts/wheel_with_engine.py", description=main.__doc__, examples=("--out dist",)
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="FOLDER", help="default: dist")
    arguments = parser.parse_args(argv)
    # files that an earlier build left there would get into the wheel
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    try:
        compile_binaries(FOLDER)
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(arguments.out.resolve()), str(ROOT)]
        built = subprocess.run(command)
    finally:
        # a checkout has none, so that changes of the source take effect
        for folder in (FOLDER, ROOT / "build"):
            shutil.rmtree(folder, ignore_errors=True)
    return built.returncode


def compile_binaries(folder: Path) -> None:
    """Compile all binaries into a folder, which is replaced, and record their checksums.

    Raises:
        ValueError: ziglang is missing or fails; its message is quoted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for binary in BINARIES:
        done = subprocess.run(
            [sys.executable, *COMPILER, *zig_flags(binary), SOURCE.name, "-o", folder / binary.file],
            # a relative name, so that the files have no path of the machine
            cwd=SOURCE.parent,
            capture_output=True,
            encoding="utf-8",
            timeout=_TIMEOUT_S,
        )
        if done.returncode:
            raise ValueError(f"ziglang cannot compile {binary.file}: {done.stderr.strip()[-300:]}")
        print(f"{binary.file}: {(folder / binary.file).stat().st_size / 1e3:.0f} KB")
    for path in folder.iterdir():
        if path.suffix in (".lib", ".pdb"):
            path.unlink()
    write_checksums(folder)


def zig_flags(binary: Binary) -> tuple[str, ...]:
    """Flags of `zig cc` for a binary."""
    target = _TARGETS[binary.system, binary.machine]
    # without a processor named, zig would take that of this machine for a target of the same kind
    processor = "x86_64+avx2+fma" if binary.avx2 else "x86_64" if binary.machine == "x86_64" else "generic"
    name = (f"-Wl,-install_name,@rpath/{binary.file}",) if binary.system == "Darwin" else ()
    return ("-target", target, f"-mcpu={processor}", *FLAGS, "-g0", "-s", *_SYSTEM_FLAGS[binary.system], *name)


if __name__ == "__main__":
    sys.exit(run(main))
