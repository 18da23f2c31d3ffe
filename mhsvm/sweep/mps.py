"""NVIDIA's Multi-Process Service (MPS): processes on one GPU run at the same time instead of in turn.

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
# Default folder in which CUDA processes look for a service.
_DEFAULT_PIPES = Path("/tmp/nvidia-mps")
_SECONDS_TO_ANSWER = 20


class _NoService(Exception):
    """A service does not start or end; the message has the reason."""


def runs_at_once() -> bool:
    """Whether an MPS service is running, or `share_gpus` can start one."""
    return _is_running() or shutil.which(_CONTROL) is not None


@contextmanager
def share_gpus(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Run an MPS service for each GPU with several places until the block ends, unless one is running already.

    If a service does not start, the runs on its GPU take turns, and a warning is logged.

    Yields:
        The places; on a GPU with a new service, their environments point to it.
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
    """Run a service in an environment; yield the additional variables for its clients."""
    # a temporary folder of the system, because the path of a socket must be short
    with tempfile.TemporaryDirectory(prefix="mhsvm-mps-", ignore_cleanup_errors=True) as folder:
        own = {_PIPES: folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        daemon = {**os.environ, **environment, **own}
        _send("", ["-d"], daemon)
        try:
            yield own | _renumber(daemon.get(_VISIBLE))
        finally:
            try:
                _send("quit\n", [], daemon)
            except _NoService as error:
                log.warning("NVIDIA's MPS does not end: %s", error)


def _send(words: str, options: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            [_CONTROL, *options],
            input=words,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS_TO_ANSWER,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _NoService(str(error)) from error
    if done.returncode:
        raise _NoService(done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}")


def _renumber(visible: str | None) -> dict[str, str]:
    """Number the GPUs from 0 for the clients, as the service does with its visible GPUs."""
    return {} if visible is None else {_VISIBLE: ",".join(map(str, range(len(visible.split(",")))))}
