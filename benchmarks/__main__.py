"""`python -m benchmarks`, in a checkout."""

import sys

from benchmarks.cli import main
from mhsvm.cli.main import run

sys.exit(run(main))
