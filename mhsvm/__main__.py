"""`python -m mhsvm COMMAND …`: what torchrun and a sweep start."""

from mhsvm.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
