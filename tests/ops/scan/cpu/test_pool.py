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
from mhsvm.ops.scan.cpu.pool import _POOL, run_units


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


@pytest.fixture
def _two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


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

    monkeypatch.setattr(_POOL, "executor", Crowded)
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


def test_runs_without_a_folder_to_cache_in(tmp_path):
    """No user, not even root, can create a folder below a file."""
    file = tmp_path / "file"
    file.touch()
    script = """
from numba.core import caching
for locator in (caching.InTreeCacheLocator, caching.UserWideCacheLocator) if hasattr(
    caching, "InTreeCacheLocator") else (caching._InTreeCacheLocator, caching._UserWideCacheLocator):
    locator.get_cache_path = lambda self: FILE
""".replace("FILE", repr(str(file / "cache")))
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    run = run_script(script + SCRIPT, environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("[1.414")
    assert "set NUMBA_CACHE_DIR to a folder that can" in run.stderr


def test_the_next_process_finds_the_kernels_on_disk(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
    first, second = (run_script(SCRIPT, environment).stdout for _ in range(2))
    assert "data saved" in first
    assert "data loaded" in second
    assert "data saved" not in second
    assert first.splitlines()[-1] == second.splitlines()[-1]
    # The name contains a hash of the sources.
    assert any(tmp_path.rglob("route_statistics_cpu_kernels.route_statistics_fwd_cpu_kernel_????????????-*.nbc"))
