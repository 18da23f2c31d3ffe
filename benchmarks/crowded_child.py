"""The measured process of `benchmarks.crowded`, which starts it as a program of its own, in any checkout.

It uses only names that older checkouts have too. `python crowded_child.py THREADS` reads the name of a workload and a
number of seconds from each line of stdin, and answers with images per second.
"""

import sys
import time

# first, as every program of this project does: it chooses how torch's threads wait
import mhsvm  # noqa: F401  # isort: skip

import numpy as np
import torch

from benchmarks.fresh import fresh_step, random_batch
from mhsvm.inference.predictor import Predictor
from mhsvm.models import create_model

MODEL, SIZE, BATCH = "ultralight_vm_unet", 256, 8


def workloads():
    """By name: a function, and the images of a call."""
    device = torch.device("cpu")
    step = fresh_step(MODEL, device=device, dtype=torch.float32, mode="auto")
    batch = random_batch(BATCH, SIZE)
    torch.manual_seed(0)
    predictor = Predictor(
        [create_model(MODEL)],
        normalize=lambda images: images / 255,
        size=(SIZE, SIZE),
        threshold=0.5,
        device=device,
    )
    images = list(np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8))
    return {
        "one image": (lambda: predictor(images[0]), 1),
        "images": (lambda: predictor.predict_batch(images), BATCH),
        "training": (lambda: step(*batch), BATCH),
    }


def rate(call, images, seconds):
    """Images per second; at least two calls."""
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls * images / (time.perf_counter() - start)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    known = workloads()
    for call, _ in known.values():
        for _ in range(3):
            call()
    print("ready", flush=True)
    for line in sys.stdin:
        name, seconds = line.rsplit(maxsplit=1)
        print(rate(*known[name], float(seconds)), flush=True)


if __name__ == "__main__":
    main()
