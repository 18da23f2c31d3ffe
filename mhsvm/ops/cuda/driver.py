"""The CUDA driver, by ctypes: load machine code and launch kernels on torch's streams."""

import ctypes
import functools

import torch

_MOST_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_WITHOUT_ATTRIBUTE = 48 * 1024


class DriverError(RuntimeError):
    """The driver is missing or reports an error."""


@functools.cache
def load_driver() -> ctypes.CDLL:
    """The driver's library.

    Raises:
        DriverError: It cannot be loaded.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DriverError(f"the NVIDIA driver cannot be loaded: {error}") from None
    # types once, not at every call
    pointer, unsigned = ctypes.c_void_p, ctypes.c_uint
    library.cuLaunchKernel.argtypes = (pointer, *(unsigned,) * 7, pointer, pointer, pointer)
    return library


@functools.cache
def driver_version() -> tuple[int, int]:
    """Newest CUDA version that the driver supports, (major, minor)."""
    number = ctypes.c_int()
    _check(load_driver().cuDriverGetVersion(ctypes.byref(number)))
    return number.value // 1000, number.value % 1000 // 10


class Function:
    """A kernel of a device's own, in torch's context there.

    Args:
        cubin: Machine code for this device.
        name: The kernel.
        device: The device's index.
        threads: Threads of a block.
        shared_bytes: Dynamic shared memory of a block.
    Raises:
        DriverError: The driver does not take it.
    """

    def __init__(self, cubin: bytes, name: str, *, device: int, threads: int, shared_bytes: int) -> None:
        self._threads, self._shared_bytes = threads, shared_bytes
        self._launch = load_driver().cuLaunchKernel
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        with torch.cuda.device(device):
            torch.cuda.current_stream()  # makes torch's context the current one
            _check(load_driver().cuModuleLoadData(ctypes.byref(module), cubin))
            _check(load_driver().cuModuleGetFunction(ctypes.byref(self._function), module, name.encode()))
            if shared_bytes > _WITHOUT_ATTRIBUTE:
                attribute = _MOST_DYNAMIC_SHARED_BYTES
                _check(load_driver().cuFuncSetAttribute(self._function, attribute, shared_bytes))

    def launch(self, blocks: int, parameters: ctypes.Structure, stream: int) -> None:
        """Launch with one argument, a structure by value. The device of the stream has to be torch's current one.

        Raises:
            DriverError: The launch fails.
        """
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(parameters))
        _check(
            self._launch(self._function, blocks, 1, 1, self._threads, 1, 1, self._shared_bytes, stream, arguments, None)
        )

    def attribute(self, number: int) -> int:
        """An attribute of the function, such as 4, its registers, or 3, its bytes of local memory."""
        value = ctypes.c_int()
        _check(load_driver().cuFuncGetAttribute(ctypes.byref(value), number, self._function))
        return value.value


def _check(result: int) -> None:
    if result:
        text = ctypes.c_char_p()
        load_driver().cuGetErrorString(result, ctypes.byref(text))
        raise DriverError(f"the CUDA driver reports error {result}: {(text.value or b'unknown').decode()}")
