"""The table of backends: the ways to compute operations, the fastest first, and why one cannot run on a machine."""

from collections.abc import Callable
from dataclasses import dataclass

from mhsvm.native import library
from mhsvm.ops import triton_support
from mhsvm.ops.cuda import support as cuda_support
from mhsvm.ops.scan import mamba_ssm
from mhsvm.ops.scan.cpu import cpu_scan


def _always_available() -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """A way to compute operations. The operations say which implementation is its: see `mhsvm.ops.dispatch`.

    Attributes:
        name: Value of the argument `backend`.
        unavailable_reason: Why it cannot run on this machine, or None if it can.
        automatic: Whether "auto" may choose it.
        expected_on: Device type where it should run on every machine: there "auto" warns if it cannot.
        gradients: Whether it computes gradients; if not, it only takes calls that need none.
        origin: Where its code is from, in a few words, where that depends on the machine; only asked if it can run.
    """

    name: str
    unavailable_reason: Callable[[], str | None] = _always_available
    automatic: bool = True
    expected_on: str | None = None
    gradients: bool = True
    origin: Callable[[], str] | None = None


# The row that computes all operations while torch.export records them.
PORTABLE = "portable"

# "auto" takes the first row that can run an operation.
_BACKENDS: tuple[Backend, ...] = (
    Backend("cuda", cuda_support.unavailable_reason, expected_on="cuda"),
    Backend("triton", triton_support.unavailable_reason, expected_on="cuda"),
    Backend("mamba_ssm", mamba_ssm.unavailable_reason),
    Backend("native", library.unavailable_reason, gradients=False, origin=library.origin),
    Backend("cpu", cpu_scan.unavailable_reason, expected_on="cpu"),
    Backend("chunked"),
    Backend(PORTABLE, automatic=False),
    Backend("reference", automatic=False),
)


def all_backends() -> tuple[Backend, ...]:
    """The whole table, the fastest first, including backends that cannot run on this machine."""
    return _BACKENDS


def list_backends() -> tuple[str, ...]:
    """Names of all backends that can run on this machine, the fastest first."""
    return tuple(backend.name for backend in _BACKENDS if backend.unavailable_reason() is None)


def find_backend(name: str) -> Backend | None:
    """The row of this name, or None."""
    for backend in _BACKENDS:
        if backend.name == name:
            return backend
    return None


def register_backend(backend: Backend, *, before: str = "cuda") -> None:
    """Add a row to the table, before another one; by default as the fastest.

    Raises:
        ValueError: The name is taken, or there is no row `before`.
    """
    global _BACKENDS
    names = [row.name for row in _BACKENDS]
    if backend.name in ("auto", *names):
        raise ValueError(f"a backend has a name of its own: {backend.name!r} is taken; known are: {', '.join(names)}")
    if before not in names:
        raise ValueError(f"no backend is named {before!r}; known are: {', '.join(names)}")
    i = names.index(before)
    _BACKENDS = (*_BACKENDS[:i], backend, *_BACKENDS[i:])
