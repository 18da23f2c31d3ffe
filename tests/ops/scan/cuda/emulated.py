"""Runs the CUDA kernels on a CPU, compiled by g++ against `emulator.h`."""

import ctypes
import hashlib
import re
import shutil
import subprocess
from ctypes import Structure
from pathlib import Path

import torch

from mhsvm.ops.cuda.cubins import Variant

COMPILER = shutil.which("g++")
_HEADER = Path(__file__).with_name("emulator.h")
_ENTRY = """
static const {parameters}* arguments;
static void call() {{ {kernel}(*arguments); }}
extern "C" void entry(const void* p, int blocks, int threads, int shared_bytes, int late, int falling) {{
  arguments = (const {parameters}*)p;
  run_blocks(call, blocks, threads, shared_bytes, late, falling);
}}
"""


class Emulator:
    """Takes the place of `mhsvm.ops.cuda.kernels.launch`.

    Attributes:
        late: Whether asynchronous copies happen as late as they may.
        falling: Whether lanes and warps run in falling order.
        launched: Names of the kernels.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._entries = folder, {}
        self.late, self.falling = True, False
        self.launched: list[Variant] = []

    def launch(self, variant: Variant, blocks: int, parameters: Structure, device: torch.device) -> None:
        entry = self._entries.get(variant)
        if entry is None:
            entry = self._entries[variant] = self._compile(variant)
        self.launched.append(variant)
        entry(ctypes.byref(parameters), blocks, variant.threads, variant.shared_bytes, self.late, self.falling)

    def _compile(self, variant: Variant):
        sources = [_HEADER, variant.source, *sorted(variant.source.parent.glob("*.cuh"))]
        texts = "".join(path.read_text() for path in sources)
        key = hashlib.sha256(f"{variant}{texts}".encode()).hexdigest()[:16]
        folder = self._folder / key
        library = folder / "kernel.so"
        if not library.exists():
            folder.mkdir()
            shutil.copy(_HEADER, folder / "device.cuh")
            for path in variant.source.parent.glob("*.cuh"):
                if path.name != "device.cuh":
                    shutil.copy(path, folder)
            text = variant.source.read_text()
            parameters = re.search(rf"{variant.function}\(const __grid_constant__ (\w+) p\)", text)[1]
            (folder / "kernel.cpp").write_text(text + _ENTRY.format(parameters=parameters, kernel=variant.function))
            constants = (*variant.constants, ("SHARED_BYTES", variant.shared_bytes))
            command = [COMPILER, "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-w"]
            command += [f"-D{name}={value}" for name, value in constants]
            subprocess.run([*command, str(folder / "kernel.cpp"), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library)).entry
