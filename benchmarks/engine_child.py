"""The measured process of `benchmarks.engine`, which starts it as a program of its own, in any checkout.

`python engine_child.py WEIGHTS SIZE` answers each line of stdin with the CPU time of an image in seconds, on one core.
"""

import sys
import time

# first, as every program of this project does: it chooses how torch's threads wait
import mhsvm  # noqa: F401  # isort: skip

import torch

from mhsvm.models import create_model

CALLS = 4


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", pretrained=sys.argv[1]).eval()
    size = int(sys.argv[2])
    image = torch.randint(256, (1, 3, size, size)).float()
    with torch.inference_mode():
        for _ in range(5):
            model(image)
        print("ready", flush=True)
        for _ in sys.stdin:
            start = time.process_time()
            for _ in range(CALLS):
                model(image)
            print((time.process_time() - start) / CALLS, flush=True)


if __name__ == "__main__":
    main()
