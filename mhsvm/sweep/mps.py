"""NVIDIA's Multi-Process Service (MPS): processes that share a GPU run on it at the same time instead of in turn.

Source: https://docs.nvidia.com/deploy/mps/
"""

import logging
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from mhsvm.sweep.places import Place

log = logging.getLogger(__name__)

_CONTROL = "nvidia-cuda-mps-control"
_PIPES, _VISIBLE = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_VISIBLE_DEVICES"
# Where every CUDA process looks for a service by itself.
_DEFAULT_PIPES = Path("/tmp/nvidia-mps")
_SECONDS_TO_ANSWER = 20


class _NoService(Exception):
    """A service does not start or end; the message says why."""


def runs_at_once() -> bool:
    """Whether a service is there for processes that share a GPU, or `share_gpus` can start one."""
    return _is_running() or shutil.which(_CONTROL) is not None


@contextmanager
def share_gpus(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Run a service for each GPU that has several places, until the block ends, unless one is there already.

    Runs take turns on a GPU whose service does not start; the log says so.

    Yields:
        The places, those of such a GPU with an environment that leads to its service.
    """
    numbers = Counter(place.device for place in places)
    firsts = {place.device: place for place in reversed(places)}
    environments: dict[str, Mapping[str, str]] = {}
    with ExitStack() as services:
        for device in [name for name, number in numbers.items() if number > 1 and name.startswith("cuda")]:
            if _is_running():
                log.info("%s: its runs share it through the service of NVIDIA's MPS that is running", device)
                continue
            try:
                environments[device] = services.enter_context(_service(firsts[device].environment))
                log.info("%s: its runs share it through a service of NVIDIA's MPS", device)
            except _NoService as error:
                log.warning("%s: its runs take turns, since NVIDIA's MPS does not start: %s", device, error)
        yield [
            replace(place, environment={**place.environment, **environments.get(place.device, {})}) for place in places
        ]


def _is_running() -> bool:
    return _PIPES in os.environ or (_DEFAULT_PIPES / "control").exists()


@contextmanager
def _service(environment: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """A service for who has this environment; yields what its clients need on top of it."""
    # in the system's folder for such things: the path of a socket must be short
    with tempfile.TemporaryDirectory(prefix="mhsvm-mps-", ignore_cleanup_errors=True) as folder:
        own = {_PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        daemon = {**os.environ, **environment, **own}
        _tell("", ["-d"], daemon)
        try:
            yield own | _numbered_anew(daemon.get(_VISIBLE))
        finally:
            try:
                _tell("quit\n", [], daemon)
            except _NoService as error:
                log.warning("NVIDIA's MPS does not end: %s", error)


def _tell(words: str, options: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            [_CONTROL, *options],
            input=words,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ANSWER,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NoService(str(error)) from error
    if done.returncode:
        raise _NoService(done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}")


def _numbered_anew(visible: str | None) -> dict[str, str]:
    """A service numbers the GPUs that it sees from 0, and so must its clients."""
    return {} if visible is None else {_VISIBLE: ",".join(map(str, range(len(visible.split(",")))))}
