"""Run processes concurrently, one per place; restart them after failures and stop them cleanly."""

import logging
import os
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mhsvm.runtime.stop import StopSignal
from mhsvm.sweep.places import Place
from mhsvm.text_file import encode

log = logging.getLogger(__name__)

# Exit status of a command for bad input, for which a retry is useless.
BAD_INPUT = 2
# Time for a training to save its state after SIGTERM, before it is killed.
SECONDS_TO_STOP = 60
_POLL_SECONDS = 0.1


class Command(NamedTuple):
    """A command line, with its purpose for messages."""

    purpose: str
    words: list[str]


@dataclass
class Task:
    """Commands that run one after another.

    Attributes:
        name: Name for messages.
        log: File to which the output of the commands is appended.
        next_command: Returns the next command according to the files that exist, or None at the end.
        failures: Number of failed commands.
    """

    name: str
    log: Path
    next_command: Callable[[], Command | None]
    failures: int = 0


@dataclass(frozen=True)
class _Running:
    task: Task
    place: Place
    process: subprocess.Popen
    log_start: int


def run_tasks(
    tasks: Sequence[Task], places: Sequence[Place], *, retries: int, stop: StopSignal, inherited: Sequence[int] = ()
) -> dict[str, str]:
    """Run all tasks, one per place, until they are complete or `stop` receives a signal.

    A failed command is started again, at most `retries` times per task. After that, or immediately if the input was
    bad, the task is given up and the others continue.

    Args:
        tasks: Tasks to run.
        places: Places for one process each.
        retries: Number of retries per task.
        stop: Signal to stop all processes.
        inherited: Descriptors of open files that each process inherits.
    Returns:
        Reason by name of each task that was given up: the last line of its output.
    """
    waiting, free = deque(tasks), deque(places)
    running: list[_Running] = []
    given_up: dict[str, str] = {}
    try:
        while waiting or running:
            while waiting and free:
                task = waiting.popleft()
                command = task.next_command()
                if command is None:
                    log.info("%s: done; %d under way, %d to come", task.name, len(running), len(waiting))
                else:
                    running.append(_start(task, command, free.popleft(), inherited))
            time.sleep(_POLL_SECONDS)
            if stop.signum is not None:
                break
            for ended in [item for item in running if item.process.poll() is not None]:
                running.remove(ended)
                free.appendleft(ended.place)
                if ended.process.returncode == 0 or _may_try_again(ended, given_up, retries=retries):
                    waiting.appendleft(ended.task)
        if stop.signum is not None:
            _stop(running)
    finally:
        for item in running:
            item.process.kill()
            item.process.wait()
    return given_up


def _start(task: Task, command: Command, place: Place, inherited: Sequence[int]) -> _Running:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as output:
        output.write(encode(f"$ {shlex.join(command.words)}\n"))
        output.flush()
        log_start = output.tell()
        process = subprocess.Popen(
            command.words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **place.environment},
            pass_fds=inherited,
        )
    log.info("%s: %s on %s", task.name, command.purpose, place.device)
    return _Running(task, place, process, log_start)


def _may_try_again(ended: _Running, given_up: dict[str, str], *, retries: int) -> bool:
    task, status = ended.task, ended.process.returncode
    task.failures += 1
    reason = f"killed by {signal.Signals(-status).name}" if status < 0 else _last_line(task.log, ended.log_start)
    if status != BAD_INPUT and task.failures <= retries:
        log.warning("%s: failed, trying again (%d of %d): %s", task.name, task.failures, retries, reason)
        return True
    log.error("%s: given up: %s; its whole output is in %s", task.name, reason, task.log)
    given_up[task.name] = reason
    return False


def _last_line(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _stop(running: Sequence[_Running]) -> None:
    """Ask every process to save its state and stop; kill it after a timeout."""
    log.info("stopping %d processes, each saves its state; a second Ctrl-C ends them immediately", len(running))
    for item in running:
        item.process.terminate()
    deadline = time.monotonic() + SECONDS_TO_STOP
    for item in running:
        try:
            item.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s: did not stop in %d s and is ended", item.task.name, SECONDS_TO_STOP)
