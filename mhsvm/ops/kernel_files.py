"""Compiled kernels as files: each with a checksum, read only if no other user can have written it."""

import hashlib
import logging
import os
from pathlib import Path

from mhsvm.files import replace_when_complete
from mhsvm.ownership import is_own

log = logging.getLogger(__name__)

_DIGEST = 32


def read_kernel_file(path: Path) -> bytes | None:
    """The content of a file that only this user can have written, and that is whole; otherwise None."""
    try:
        with path.open("rb") as file:
            # of the open file, which cannot be exchanged between the check and the reading
            if not is_own(os.fstat(file.fileno())):
                log.warning("%s is not used: others may have written it; the kernel is compiled again", path)
                return None
            content = file.read()
    except OSError:
        return None
    digest, payload = content[:_DIGEST], content[_DIGEST:]
    return payload if hashlib.sha256(payload).digest() == digest else None


def write_kernel_file(path: Path, payload: bytes) -> None:
    """Write a file for `read_kernel_file`, whole or not at all; a failure is logged, and costs another compilation."""
    try:
        with replace_when_complete(path) as partial:
            partial.touch(mode=0o600)
            partial.write_bytes(hashlib.sha256(payload).digest() + payload)
    except OSError as error:
        log.warning("the compiled kernel %s cannot be kept: %s", path.stem.rpartition("-")[0], error)
