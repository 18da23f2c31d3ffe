"""Processes that count, fail and hang; none is a training."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mhsvm.folder_lock import FolderLock
from mhsvm.runtime.stop import StopSignal
from mhsvm.sweep import schedule
from mhsvm.sweep.places import Place
from mhsvm.sweep.schedule import Command, Task, run_tasks


@pytest.fixture
def make_task(tmp_path):
    """A task whose commands each are a line of shell; it counts as done when the file NAME.done is there."""

    def make(name: str, script: str) -> Task:
        done = tmp_path / f"{name}.done"

        def next_command() -> Command | None:
            return None if done.exists() else Command("trying", ["sh", "-c", f"cd {tmp_path}\n{script}"])

        return Task(name, tmp_path / "logs" / f"{name}.txt", next_command)

    return make


def test_every_task_is_done_and_no_more_than_there_is_room_for(make_task, tmp_path):
    script = "echo x >> started; mkdir $$.at; ls -d *.at | wc -l >> together; sleep 0.3; rmdir $$.at; touch {}.done"
    tasks = [make_task(name, script.format(name)) for name in "abcde"]
    places = [Place("first", {"PLACE": "1"}), Place("second", {"PLACE": "2"})]
    assert run_tasks(tasks, places, retries=0, stop=StopSignal()) == {}
    assert (tmp_path / "started").read_text().count("x") == 5
    assert {int(line) for line in (tmp_path / "together").read_text().splitlines()} == {1, 2}


def test_commands_run_where_their_place_says_and_their_output_is_kept(make_task, tmp_path):
    tasks = [make_task("a", "echo place $PLACE; echo trouble >&2; touch a.done")]
    run_tasks(tasks, [Place("first", {"PLACE": "7"})], retries=0, stop=StopSignal())
    lines = (tmp_path / "logs/a.txt").read_text().splitlines()
    assert lines[0].startswith("$ sh -c")
    assert lines[-2:] == ["place 7", "trouble"]


def test_a_task_that_fails_is_tried_again_and_given_up_if_it_fails_again(make_task, tmp_path, caplog):
    tasks = [
        make_task("unlucky", "echo x >> unlucky; [ $(wc -l < unlucky) = 3 ] && touch unlucky.done"),
        make_task("broken", "echo x >> broken; echo first; echo it broke; echo; exit 1"),
        make_task("killed", "echo x >> killed; kill -9 $$"),
        make_task("wrong", "echo x >> wrong; echo error: no such set; exit 2"),
        make_task("last", "touch last.done"),
    ]
    caplog.set_level(logging.INFO, logger="mhsvm")
    given_up = run_tasks(tasks, [Place("cpu")], retries=2, stop=StopSignal())
    assert given_up == {"broken": "it broke", "killed": "killed by SIGKILL", "wrong": "error: no such set"}
    times = {name: (tmp_path / name).read_text().count("x") for name in ("unlucky", "broken", "killed", "wrong")}
    assert times == {"unlucky": 3, "broken": 3, "killed": 3, "wrong": 1}
    assert (tmp_path / "last.done").exists()
    assert "broken: failed, trying again (1 of 2): it broke" in caplog.messages
    assert f"wrong: given up: error: no such set; its whole output is in {tmp_path}/logs/wrong.txt" in caplog.messages


def send_when(path, signum: int) -> None:
    """Let this process get a signal once a file is there."""

    def wait() -> None:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signum)

    threading.Thread(target=wait).start()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_running_tasks_in_order_and_starts_no_others(signum, make_task, tmp_path):
    tasks = [
        make_task("slow", "trap 'touch saved; exit 143' TERM; touch ready; while :; do sleep 0.05; done"),
        make_task("next", "touch next.done"),
    ]
    with StopSignal() as stop:
        send_when(tmp_path / "ready", signum)
        assert run_tasks(tasks, [Place("cpu")], retries=2, stop=stop) == {}
    assert stop.signum == signum
    assert (tmp_path / "saved").exists()
    assert not (tmp_path / "next.done").exists()


def test_a_task_that_does_not_stop_is_killed(make_task, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "SECONDS_TO_STOP", 0.3)
    task = make_task("deaf", "trap '' TERM; echo $$ > pid; touch ready; while :; do sleep 0.05; done")
    with StopSignal() as stop:
        send_when(tmp_path / "ready", signal.SIGTERM)
        run_tasks([task], [Place("cpu")], retries=0, stop=stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_folder_is_held_until_the_last_process_has_ended(make_task, tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from mhsvm.runtime.stop import StopSignal;"
        "from mhsvm.folder_lock import FolderLock; from mhsvm.sweep.places import Place;"
        "from mhsvm.sweep.schedule import Command, Task, run_tasks\n"
        "folder = Path(sys.argv[1])\n"
        "script = f'echo $$ > {folder}/pid.part; mv {folder}/pid.part {folder}/pid; exec sleep 60'\n"
        "task = Task('slow', folder / 'log', lambda: Command('sleeping', ['sh', '-c', script]))\n"
        "with FolderLock('a sweep') as lock:\n"
        "    held = lock.hold(folder)\n"
        "    run_tasks([task], [Place('cpu')], retries=0, stop=StopSignal(), inherited=[held])\n"
    )
    pid = tmp_path / "pid"
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as sweep:
        deadline = time.monotonic() + 30
        while not pid.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        sweep.kill()
    try:
        with (
            FolderLock("a sweep") as lock,
            pytest.raises(ValueError, match=f"a sweep is running in .*process {sweep.pid}"),
        ):
            lock.hold(tmp_path)
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:
        try:
            with FolderLock("a sweep") as lock:
                lock.hold(tmp_path)
                return
        except ValueError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
