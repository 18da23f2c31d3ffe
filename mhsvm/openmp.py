"""How long threads of OpenMP spin before they sleep: torch's library reads it once, when it is loaded.

GNU's library (in torch's wheels for Linux) spins for milliseconds by default, also while another process waits for the
core, and between the short operations of a small network it never sleeps. A few microseconds bridge most of these gaps.
"""

import os
import sys
from collections.abc import MutableMapping

# turns of the loop of GNU's library; milliseconds of LLVM's and Intel's
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
# each of these says how threads wait, or that the user has an opinion about it
_CHOICES = ("OMP_WAIT_POLICY", "KMP_LIBRARY", *WAITING)


def limit_spinning(environment: MutableMapping[str, str] | None = None) -> None:
    """Choose a short wait, unless torch is loaded already or the environment says how threads wait.

    Args:
        environment: Where to set it; by default that of this process, which its children inherit.
    """
    environment = os.environ if environment is None else environment
    if "torch" not in sys.modules and not any(name in environment for name in _CHOICES):
        environment.update(WAITING)
