import os
import subprocess
import sys

import pytest

from mhsvm import openmp
from mhsvm.openmp import WAITING, limit_threads, set_by_user


@pytest.fixture(autouse=True)
def _before_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(openmp, "_chosen_here", set())
    monkeypatch.setattr(openmp.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(openmp, "_affinity", lambda: 6)
    monkeypatch.setattr(openmp, "cpu_quota", lambda: None)


def chosen(environment, quota=None):
    environment = dict(environment)
    limit_threads(environment, quota=quota)
    return environment


def test_threads_wait_shortly():
    assert chosen({"PATH": "/bin"}) == {"PATH": "/bin", **WAITING}


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY"])
def test_what_the_user_has_set_stays(name):
    assert chosen({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(("quota", "threads"), [(1, "1"), (3, "3"), (7, "6")])
def test_no_more_threads_than_the_quota(quota, threads):
    assert chosen({}, quota)["OMP_NUM_THREADS"] == threads
    assert chosen({"OMP_NUM_THREADS": "5"}, quota)["OMP_NUM_THREADS"] == "5"


@pytest.mark.parametrize("quota", [None, 8, 64])
def test_without_a_smaller_quota_torch_counts_itself(quota):
    assert "OMP_NUM_THREADS" not in chosen({}, quota)


def test_nothing_changes_once_torch_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    assert chosen({}, 1) == {}


def test_a_choice_of_ours_is_not_the_users(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert set_by_user("OMP_NUM_THREADS") == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert set_by_user("OMP_NUM_THREADS") is None
    limit_threads(quota=2)
    assert openmp.os.environ["OMP_NUM_THREADS"] == "2"
    assert set_by_user("OMP_NUM_THREADS") is None


def test_importing_the_package_is_early_enough():
    """Without torch, so it takes no time: the package chooses when it is imported."""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import os, mhsvm; print(os.environ['GOMP_SPINCOUNT'])"
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == WAITING["GOMP_SPINCOUNT"]
