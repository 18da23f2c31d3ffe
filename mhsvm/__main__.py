"""`python -m mhsvm COMMAND …`, which torchrun and sweeps start."""

from mhsvm.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
