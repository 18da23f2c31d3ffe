"""Switches of the process: set, and put back."""

from contextlib import suppress

import pytest
import torch

from mhsvm.runtime.numerics import convolutions_by_trial, numerics


def switches():
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_switches_are_set_and_put_back(tf32, deterministic):
    before = switches()
    with numerics(tf32=tf32, deterministic=deterministic):
        assert switches() == (tf32, tf32, not deterministic, deterministic, not deterministic)
    assert switches() == before


def test_nothing_is_tried_inside_a_deterministic_block():
    before = switches()
    with numerics(tf32=False, deterministic=True), convolutions_by_trial():
        assert not torch.backends.cudnn.benchmark
    with convolutions_by_trial():
        assert torch.backends.cudnn.benchmark
    assert switches() == before


def fail():
    with numerics(tf32=True, deterministic=True):
        raise RuntimeError("out")


def test_an_error_puts_them_back_too():
    before = switches()
    with pytest.raises(RuntimeError, match="out"):
        fail()
    assert switches() == before


def precisions():
    """Every switch of precision, older and newer; None where torch refuses to read an older one."""
    backends, values = torch.backends, []
    for read in (
        torch.get_float32_matmul_precision,
        lambda: backends.cuda.matmul.allow_tf32,
        lambda: backends.cudnn.allow_tf32,
    ):
        values.append(None)
        with suppress(RuntimeError):
            values[-1] = read()
    newer = [backends, backends.cudnn, backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    newer += [backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [*values, *(switch.fp32_precision for switch in newer)]


@pytest.fixture
def _put_back():
    """Put every switch back to its first value, as far as torch lets them be set."""
    yield
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True


def set_newer(path, value):
    owner = torch.backends
    for name in path.split(".")[:-1]:
        owner = getattr(owner, name)
    setattr(owner, path.split(".")[-1], value)


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch 2.9 brought these switches")
@pytest.mark.usefixtures("_put_back")
@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(
    "user",
    [
        {},
        {"fp32_precision": "ieee"},
        {"fp32_precision": "tf32"},
        {"cudnn.fp32_precision": "ieee"},
        {"cuda.matmul.fp32_precision": "ieee"},
        {"cuda.matmul.fp32_precision": "tf32"},
        {"cudnn.conv.fp32_precision": "ieee"},
        {"cudnn.rnn.fp32_precision": "ieee"},
        {"fp32_precision": "ieee", "cudnn.conv.fp32_precision": "tf32", "cuda.matmul.fp32_precision": "tf32"},
        {"fp32_precision": "tf32", "cudnn.fp32_precision": "ieee", "mkldnn.matmul.fp32_precision": "ieee"},
        {"cuda.matmul.allow_tf32": True, "cudnn.allow_tf32": False},
    ],
    ids=str,
)
def test_the_users_newer_switches_are_put_back(user, tf32):
    for path, value in user.items():
        set_newer(path, value)
    before, chosen = precisions(), ("tf32",) if tf32 else ("ieee", "none")
    with numerics(tf32=tf32, deterministic=False):
        for switch in (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            assert switch.fp32_precision in chosen
    assert precisions() == before


@pytest.mark.usefixtures("_put_back")
@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch 2.9 brought these switches")
def test_switches_that_inherited_go_on_inheriting():
    torch.backends.fp32_precision = "ieee"
    with numerics(tf32=True, deterministic=False):
        pass
    torch.backends.fp32_precision = "tf32"
    assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.fp32_precision == "tf32"


@pytest.mark.usefixtures("_put_back")
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_products_is_put_back(precision):
    torch.set_float32_matmul_precision(precision)
    with numerics(tf32=False, deterministic=False):
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == precision


def test_a_warning_in_place_of_an_error_is_put_back():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with numerics(tf32=False, deterministic=True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
