"""Turn archives or folders of a data set into one prepared file: `python scripts/prepare.py --help`."""

import sys
from pathlib import Path

# Works from a clone that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mhsvm.cli.main import run
from mhsvm.cli.prepare import main

if __name__ == "__main__":
    raise SystemExit(run(main))
