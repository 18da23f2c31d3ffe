"""Programs that inject faults: small in the tests, large with `python -m tests.faults NAME --count N`.

Each module has `run(*, count, seed, folder)`, which returns the number of outcomes of each kind of file or command.
"""
