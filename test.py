from mhsvm.cli.main import run
from mhsvm.cli.test import main

if __name__ == "__main__":
    raise SystemExit(run(main))
