"""One UltraLight VM-UNet in C: its arguments and weights, called on arrays.

Shape letters: b images, h w their size in pixels, i channels of an image, k classes.
"""

import ctypes
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mhsvm.native.library import library


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("in_channels", ctypes.c_int32),
        ("num_classes", ctypes.c_int32),
        ("channels", ctypes.c_int32 * 6),
        ("branches", ctypes.c_int32),
        ("d_state", ctypes.c_int32),
        ("d_conv", ctypes.c_int32),
        ("expand", ctypes.c_int32),
        ("bridge", ctypes.c_int32),
    )


class NativeNetwork:
    """A network of the C engine. Several threads may call it.

    Args:
        weights: float32 (n,), from `mhsvm.models.ultralight_weights.pack_weights`.
        in_channels, num_classes, channels, branches, d_state, d_conv, expand, bridge: See `UltraLightVMUNet`.
        engine: The loaded library; by default that of this machine.
    Raises:
        ValueError: The engine cannot run here, does not offer these arguments, or they are not those of the weights.
    """

    def __init__(
        self,
        weights: np.ndarray,
        *,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int],
        branches: int,
        d_state: int,
        d_conv: int,
        expand: int,
        bridge: bool,
        engine: ctypes.CDLL | None = None,
    ) -> None:
        self._engine = library() if engine is None else engine
        widths = (ctypes.c_int32 * 6)(*channels)
        self._arguments = _Arguments(in_channels, num_classes, widths, branches, d_state, d_conv, expand, bridge)
        self._check(32, 32)
        num = self._engine.ultralight_num_weights(ctypes.byref(self._arguments))
        if weights.dtype != np.float32 or weights.shape != (num,):
            raise ValueError(f"the weights are float32 ({num},); received {weights.dtype} {weights.shape}")
        self._weights = np.ascontiguousarray(weights)
        self._scratch = threading.local()

    def __call__(self, images: np.ndarray, *, num_threads: int = 1) -> np.ndarray:
        """Compute the logits of images, each on one thread.

        Args:
            images: float32 (b, h, w, i), normalized; h and w are multiples of 32.
            num_threads: Images that are computed at a time.
        Returns:
            float32 (b, k, h, w).
        Raises:
            ValueError: The images have another type or shape.
        """
        in_channels, num_classes = self._arguments.in_channels, self._arguments.num_classes
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[3] != in_channels:
            raise ValueError(f"images are float32 (b, h, w, {in_channels}); received {images.dtype} {images.shape}")
        b, h, w, _ = images.shape
        self._check(h, w)
        images = np.ascontiguousarray(images)
        logits = np.empty((b, num_classes, h, w), np.float32)
        pairs = list(zip(images, logits, strict=True))
        if min(b, num_threads) <= 1:
            for image, out in pairs:
                self._run(image, out)
        else:
            with ThreadPoolExecutor(min(b, num_threads)) as pool:
                list(pool.map(lambda pair: self._run(*pair), pairs))
        return logits

    def _run(self, image: np.ndarray, logits: np.ndarray) -> None:
        h, w, _ = image.shape
        scratch = self._memory(h, w)
        pointers = (array.ctypes.data for array in (self._weights, image, scratch, logits))
        at_weights, at_image, at_scratch, at_logits = pointers
        # ctypes releases Python's lock
        self._engine.ultralight_run(ctypes.byref(self._arguments), at_weights, at_image, h, w, at_scratch, at_logits)

    def _memory(self, h: int, w: int) -> np.ndarray:
        """Scratch memory of this thread, kept for the next image."""
        kept = getattr(self._scratch, "kept", {})
        if (h, w) not in kept:
            num = self._engine.ultralight_num_scratch(ctypes.byref(self._arguments), h, w)
            self._scratch.kept = kept = {(h, w): np.empty(num, np.float32)}
        return kept[h, w]

    def _check(self, h: int, w: int) -> None:
        broken = self._engine.ultralight_check(ctypes.byref(self._arguments), h, w)
        if broken:
            rule = self._engine.ultralight_rule(broken).decode()
            raise ValueError(f"the C engine cannot run this network on images of {h} x {w}: {rule}")
