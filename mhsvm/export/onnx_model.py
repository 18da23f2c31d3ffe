"""A file of ONNX that `mhsvm export` has written, run by ONNX Runtime.

Shape letters: b images, h w their size in pixels, k classes.
"""

import os
import re
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mhsvm.export.facts import Facts
from mhsvm.files import StrPath
from mhsvm.text_file import first_line

SUFFIX = ".onnx"
# Keys of the metadata: the facts as JSON, and the CRC-32 of all bytes before this entry.
FACTS, CHECKSUM = "mhsvm", "crc32"
_EXTRA = "pip install 'mhsvm[onnx]'"
# "fatal": its errors are exceptions, which it would print too
_LOG_NOTHING = 4


class RuntimeMissing(ValueError):
    """ONNX Runtime is not installed, or too old for a file."""


def is_onnx(path: StrPath) -> bool:
    """Whether a path has the ending of ONNX."""
    return Path(path).suffix.lower() == SUFFIX


class OnnxModel:
    """An exported network. Several threads may call it.

    Args:
        path: The file.
    Attributes:
        path: The file.
        facts: The facts in it.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: ONNX Runtime is not installed or too old, the file is damaged, or mhsvm has not written it.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no model {self.path}")
        self._content = self.path.read_bytes()
        _check_content(self._content, self.path)
        self._lock = threading.Lock()
        self._sessions: dict[tuple[int, int], Any] = {}
        session = self._session(1)
        self.facts = _read_facts(session, self.path)

    def __call__(self, images: np.ndarray, *, num_threads: int = 1) -> np.ndarray:
        """Compute probabilities.

        Args:
            images: uint8 (b, h, w, 3), RGB, at the size of the network.
            num_threads: Threads that divide the operations.
        Returns:
            float32 (b, k, h, w).
        """
        session = self._session(num_threads)
        (probability,) = session.run(None, {session.get_inputs()[0].name: images})
        return probability

    def _session(self, num_threads: int) -> Any:
        # a process that was forked does not have the threads of its parent
        key = (os.getpid(), num_threads)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = _open_session(self._content, num_threads, self.path)
            return self._sessions[key]


def checksum_entry(content: bytes) -> bytes:
    """An entry of the metadata with the checksum of a serialized model, to be appended to it.

    Repeated fields of a message may be anywhere in it, so that the sum is a model as well.
    """
    pair = _field(1, CHECKSUM.encode()) + _field(2, f"{zlib.crc32(content):08x}".encode())
    # metadata_props of ModelProto
    return _field(14, pair)


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer, of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def _check_content(content: bytes, path: Path) -> None:
    entry = checksum_entry(b"")
    found, rest = content[-len(entry) :], content[: -len(entry)]
    fixed = len(entry) - 8
    if found[:fixed] == entry[:fixed] and found != checksum_entry(rest):
        raise ValueError(
            f"{path} does not match the checksum at its end: it is damaged, so copy it again; or another program has "
            f"changed it and kept the entry {CHECKSUM} of its metadata, which it should remove"
        )


def _open_session(content: bytes, num_threads: int, path: Path) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError as error:
        raise RuntimeMissing(f"{path.name} is run by ONNX Runtime, which is not installed: {_EXTRA}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    # threads that wait for each other would take processors from other programs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _LOG_NOTHING
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.NotImplemented, errors.InvalidGraph) as error:
        raise _explained(error, path, onnxruntime.__version__) from error
    except (errors.InvalidProtobuf, errors.InvalidArgument, errors.RuntimeException) as error:
        raise ValueError(f"{path} is no model in ONNX, or is damaged: {first_line(str(error))}") from error


def _explained(error: Exception, path: Path, version: str) -> ValueError:
    message = first_line(str(error))
    if re.search(r"IR version|opset|not implemented", message, re.I):
        too_old = f"ONNX Runtime {version} is too old for {path.name}: install a newer one"
        return RuntimeMissing(f"{too_old}. It says: {message}")
    return ValueError(f"ONNX Runtime {version} cannot load {path}: {message}")


def _read_facts(session: Any, path: Path) -> Facts:
    text = session.get_modelmeta().custom_metadata_map.get(FACTS)
    if text is None:
        raise ValueError(
            f"{path} has no facts of mhsvm in its metadata (size, normalization, threshold): only models that "
            "mhsvm export has written can be predicted with"
        )
    facts = Facts.from_json(text, name=str(path))
    images, probabilities = session.get_inputs(), session.get_outputs()
    found = [(each.type, list(each.shape[1:])) for each in (*images, *probabilities)]
    expected = [("tensor(uint8)", [*facts.size, 3]), ("tensor(float)", [facts.num_classes, *facts.size])]
    if found != expected:
        raise ValueError(f"{path} does not fit its own metadata: it has {found}, not {expected}")
    return facts
