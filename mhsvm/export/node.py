"""Written pages, run by node: their own scripts, engine and weights, without a browser."""

import re
import shutil
import struct
import subprocess
import weakref
from pathlib import Path

import numpy as np

from mhsvm.export.comparison import Exported
from mhsvm.export.facts import Facts

DRIVER = Path(__file__).parent / "page" / "run_in_node.js"
# The first with all that the page uses.
OLDEST = 18
_TIMEOUT_S = 60


def find_node() -> str | None:
    """The program node, or None."""
    return shutil.which("node") or shutil.which("nodejs")


def unavailable_reason() -> str | None:
    """Why pages cannot be run on this machine, or None if they can."""
    node = find_node()
    if node is None:
        return "there is no node (nodejs), which runs the scripts of a page without a browser"
    try:
        printed = subprocess.run([node, "--version"], capture_output=True, timeout=_TIMEOUT_S).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"node cannot be started: {error}"
    shown = printed.decode(errors="replace").strip()
    found = re.match(r"v(\d+)", shown)
    if found is None or int(found[1]) < OLDEST:
        return f"node is {shown or 'of an unknown version'}; the scripts of the page need {OLDEST} or newer"
    return None


def open_page(files: tuple[Path, ...], facts: Facts) -> Exported | str:
    """Run the page among the files: RGB of any size, uint8 (H, W, 3) -> probability, float32 (k, h, w)."""
    reason = unavailable_reason()
    return _Page(files[0], facts) if reason is None else reason


class _Page:
    """A process of node that runs one model of a page; it ends with this object."""

    def __init__(self, path: Path, facts: Facts) -> None:
        node = find_node()
        assert node is not None
        self._shape = (facts.num_classes, *facts.size)
        command = [node, str(DRIVER), str(path), facts.sha256]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
        self._finalizer = weakref.finalize(self, _end, self._process)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segment one image.

        Raises:
            ValueError: The script has failed; its message is quoted.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(struct.pack("<II", *image.shape[:2]) + np.ascontiguousarray(image).tobytes())
            stdin.flush()
            content = bytearray(stdout.read(4 * int(np.prod(self._shape))))
        except BrokenPipeError:
            content = bytearray()
        if len(content) != 4 * np.prod(self._shape):
            self._finalizer.detach()
            raise ValueError(f"the page fails under node: {_end(self._process)}")
        return np.frombuffer(content, "<f4").reshape(self._shape)


def _end(process: subprocess.Popen) -> str:
    """Let the process end, and return the end of its messages."""
    # node prints little but its one error, so that the pipes cannot be full
    _, messages = process.communicate(timeout=_TIMEOUT_S)
    return messages.decode(errors="replace").strip()[-300:]
