"""Write the scan routes of an image size: `python routegen.py --w 512 --h 512`."""

from mhsvm.cli.main import run
from mhsvm.cli.routegen import main

if __name__ == "__main__":
    raise SystemExit(run(main))
