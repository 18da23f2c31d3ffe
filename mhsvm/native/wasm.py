"""The C engine in WebAssembly: `python -m mhsvm.native.wasm` compiles the file of the package again.

Users need no compiler: the file comes with the package. A record beside it has the checksum of the source that it was
compiled from, so that a test finds a file that is out of date.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from mhsvm.files import replace_when_complete
from mhsvm.native.binary import SOURCE, source_checksum
from mhsvm.text_file import write_json

WASM = SOURCE.with_suffix(".wasm")
RECORD = SOURCE.with_name("ultralight.wasm.json")

_FUNCTIONS = ("run", "num_scratch", "num_weights", "check", "rule", "minmax", "probability")
# -O3 is 9 % faster, and its file is larger by 70 %.
_FLAGS = (
    *("--target=wasm32", "-std=c11", "-Os", "-msimd128", "-mbulk-memory"),
    *("-ffreestanding", "-nostdlib", "-fvisibility=hidden"),
    *("-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=262144", "-Wl,--export=__heap_base"),
    *(f"-Wl,--export=ultralight_{name}" for name in _FUNCTIONS),
)
_TIMEOUT_S = 120


def find_compiler() -> str | None:
    """A clang with the linker of WebAssembly, or None."""
    return shutil.which("clang") if shutil.which("wasm-ld") else None


def compiler_versions(compiler: str) -> dict[str, str]:
    """Versions of clang and its linker, as they print them."""
    commands = {"clang": compiler, "linker": "wasm-ld"}
    printed = {name: _run([command, "--version"]).stdout for name, command in commands.items()}
    return {name: text.partition("\n")[0].strip() for name, text in printed.items()}


def compile_wasm(compiler: str, path: Path) -> None:
    """Compile the engine.

    Raises:
        ValueError: The compiler fails; its message is quoted.
    """
    # a relative name, so that the file has no path of the machine
    done = _run([compiler, *_FLAGS, SOURCE.name, "-o", str(path.resolve())])
    if done.returncode:
        raise ValueError(f"{compiler} failed: {done.stderr.strip()[:300]}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=SOURCE.parent, capture_output=True, timeout=_TIMEOUT_S, encoding="utf-8", errors="replace"
    )


def main() -> int:
    """Compile the file of the package again, and record its source."""
    compiler = find_compiler()
    if compiler is None:
        print("error: there is no clang with wasm-ld: install the packages clang and lld", file=sys.stderr)
        return 2
    with replace_when_complete(WASM) as partial:
        compile_wasm(compiler, partial)
        partial.chmod(0o644)
    write_json(RECORD, {"source sha256": source_checksum(), **compiler_versions(compiler)})
    print(f"{WASM.name}: {WASM.stat().st_size / 1e3:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
