"""Log messages of a command: on the console above a progress bar, and in a log file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mhsvm.text_file import ENCODING, ENCODING_ERRORS


class ConsoleHandler(logging.Handler):
    """Prints above the progress bar; errors go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        # imported here, because tqdm takes a third of the time of `mhsvm COMMAND --help`
        from tqdm import tqdm

        tqdm.write(self.format(record), file=stream)


class LogFile(logging.FileHandler):
    """Appends messages to a text file, with their time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding=ENCODING, errors=ENCODING_ERRORS)
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))


@contextmanager
def logging_to(*handlers: logging.Handler) -> Iterator[None]:
    """Send log messages of the package from INFO on to these handlers until the block ends; then close them."""
    log = logging.getLogger("mhsvm")
    log.setLevel(logging.INFO)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
