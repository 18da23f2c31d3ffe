"""The threads of the CPU kernels, together with processes, other threads and those of torch."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest
import torch

from mhsvm.ops.scan.cpu.cpu_scan import selective_scan
from mhsvm.ops.scan.cpu.pool import PROCESS, run_units


def make_inputs(seed):
    """A scan large enough for several threads; torch's operations, unsafe after a fork, use one."""
    generator = torch.Generator().manual_seed(seed)
    u, delta, B = (torch.randn(shape, generator=generator) for shape in ((4, 100, 64), (4, 100, 64), (4, 100, 2, 32)))
    return u, delta, -torch.rand(64, 32, generator=generator), B


def scan_alone(seed):
    u, delta, A, B = make_inputs(seed)
    return [selective_scan(u, delta, A, B, B, delta_softplus=True).numpy()]


def scan_and_gradients(seed):
    u, delta, A, B = inputs = [x.requires_grad_() for x in make_inputs(seed)]
    y = selective_scan(u, delta, A, B, B, delta_softplus=True)
    return [x.numpy(force=True).copy() for x in (y, *torch.autograd.grad(y.square().sum(), inputs))]


def same(one, other):
    return all((x == y).all() for x, y in zip(one, other, strict=True))


def run_in_child(queue, function):
    torch.set_num_threads(2)
    try:
        queue.put(function(0))
    except RuntimeError as error:
        queue.put(str(error))


def result_of_child(method, function):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=run_in_child, args=(queue, function))
    child.start()
    try:
        result = queue.get(timeout=120)
        child.join(timeout=60)
        assert child.exitcode == 0
    finally:
        child.kill()
    return result


START_METHODS = [x for x in ("fork", "spawn") if x in multiprocessing.get_all_start_methods()]
ignore_warnings_of_forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


@pytest.mark.usefixtures("_two_threads")
@ignore_warnings_of_forks
@pytest.mark.parametrize("method", START_METHODS)
def test_child_processes_scan(method):
    # The parent has already run a backward pass and its pool.
    scan_and_gradients(0)
    expected = scan_alone(0)
    assert same(result_of_child(method, scan_alone), expected)
    assert same(scan_alone(0), expected)


@pytest.mark.usefixtures("_two_threads")
@ignore_warnings_of_forks
@pytest.mark.parametrize("method", START_METHODS)
def test_child_processes_differentiate(method):
    """Autograd refuses to run in a forked child if the parent has run a backward pass and torch finds a GPU."""
    expected = scan_and_gradients(0)
    result = result_of_child(method, scan_and_gradients)
    if method == "fork" and torch.cuda.is_available():
        assert "Unable to handle autograd's threading in combination with fork" in result
    else:
        assert same(result, expected)
    assert same(scan_and_gradients(0), expected)


@pytest.mark.usefixtures("_two_threads")
def test_several_python_threads_at_once():
    expected = [scan_and_gradients(seed) for seed in range(3)]
    results = {}

    def work(seed):
        results[seed] = [scan_and_gradients(seed) for _ in range(5)]

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    for seed in range(3):
        assert all(same(run, expected[seed]) for run in results[seed])


class Units:
    """A kernel in Python that takes its units as a compiled one does."""

    def __init__(self, run):
        self._run, self._lock, self.threads = run, threading.Lock(), set()

    def __call__(self, *, units, taken):
        self.threads.add(threading.current_thread().name)
        while True:
            with self._lock:
                unit = int(taken[0])
                taken[0] += 1
            if unit >= units:
                return
            self._run(unit)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("units", "work"), [(0, 0), (1, 2**30), (3, 2**30), (1000, 2**30), (1000, 1)])
def test_every_unit_is_run_once(units, work):
    done = []
    run_units(Units(done.append), {}, units=units, work=work)
    assert sorted(done) == list(range(units))


@pytest.mark.usefixtures("_two_threads")
def test_little_work_stays_in_the_calling_thread():
    kernel = Units(lambda unit: None)
    run_units(kernel, {}, units=8, work=1000)
    assert kernel.threads == {threading.current_thread().name}


@pytest.mark.usefixtures("_two_threads")
def test_a_slow_thread_holds_up_one_unit():
    """Units are taken: while one thread is kept from its core, the other runs all the rest."""
    done, rest_is_done = [], threading.Event()

    def run(unit):
        if unit == 0:
            assert rest_is_done.wait(timeout=20)
        done.append(unit)
        if len(done) == 9:
            rest_is_done.set()

    run_units(Units(run), {}, units=10, work=2**30)
    assert done[-1] == 0
    assert sorted(done) == list(range(10))


@pytest.mark.usefixtures("_two_threads")
def test_a_thread_that_has_not_started_is_not_waited_for(monkeypatch):
    class Crowded:
        def submit(self, *arguments, **options):
            return Future()

    monkeypatch.setattr(PROCESS, "executor", Crowded)
    done = []
    run_units(Units(done.append), {}, units=10, work=2**30)
    assert done == list(range(10))


@pytest.mark.usefixtures("_two_threads")
def test_an_error_in_any_thread_reaches_the_caller():
    def fail(unit):
        if unit > 0:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_units(Units(fail), {}, units=4, work=2**30)


# The statistics compile faster than the scan.
SCRIPT = """
import torch
from mhsvm.ops import route_statistics
print(route_statistics(torch.arange(40.0).reshape(1, 1, 2, 20, 1).sin(), backend="cpu")[1].flatten().tolist())
"""


def run_script(text, environment):
    return subprocess.run([sys.executable, "-c", text], env=environment, capture_output=True, text=True, timeout=180)


def test_the_next_process_finds_the_kernels_on_disk(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (run_script(SCRIPT, environment) for _ in range(2))
    assert first.stderr == "compiling for this processor (the first use only): this takes up to a minute\n"
    assert second.stderr == ""
    assert first.stdout == second.stdout
    assert first.stdout.startswith("[1.414")
    assert len([*tmp_path.rglob("route_statistics_fwd_cpu_kernel-*.kernel")]) == 1


FORK = """
import os
import mhsvm, torch
from torch.nn.functional import conv2d
import mhsvm.ops.scan.cpu.pool
torch.set_num_threads(2)
x, weight = torch.ones(4, 8, 64, 64), torch.ones(8, 8, 3, 3)
total = conv2d(x, weight).sum()
if os.fork() == 0:
    os._exit(7 if conv2d(x, weight).sum() == total and torch.get_num_threads() == 1 else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]), torch.get_num_threads())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_the_parents_threads():
    """Alone, torch's convolution never returns in the child."""
    run = run_script(FORK, os.environ)
    assert (run.returncode, run.stdout) == (0, "7 2\n"), run.stderr
