"""Requests over HTTP. Errors of networks and servers are of two kinds: those that may pass, and those that do not."""

import email.utils
import math
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from mhsvm.version import __version__

# Answers after which a server may serve the same request later.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
# Seconds that a server may ask to wait for.
LONGEST_WAIT = 600


class Interrupted(OSError):
    """An error of a network or server that may pass.

    Attributes:
        wait: Seconds that the server asks to wait for, or None.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(OSError):
    """An answer that another request would get again."""


class Unreachable(OSError):
    """A server or network that has failed too often."""


class WrongRange(OSError):
    """The server has no such part of the file."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to any host, but not from https to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        check_scheme(newurl)
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise Refused(f"redirects from https to {newurl}, where anybody on the way could change the file")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_scheme(url: str) -> None:
    """Check that a place is one on the web.

    Raises:
        Refused: It is not.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Refused(f"a place is an address that starts with https:// or http://, not {url!r}")


@contextmanager
def request(url: str, headers: Mapping[str, str], *, timeout: float) -> Iterator[HTTPResponse]:
    """Send a GET request; the proxies of the environment are used.

    Args:
        url: The place.
        headers: Further headers; the answer is asked for without compression.
        timeout: Seconds without any byte after which the connection is given up.
    Yields:
        The answer, of status 200 or 206.
    Raises:
        Interrupted, Refused, WrongRange: The server or the network fails; the message ends the sentence "URL …".
    """
    check_scheme(url)
    opener = urllib.request.build_opener(_Redirects)
    agent = {"User-Agent": f"mhsvm/{__version__}", "Accept-Encoding": "identity"}
    try:
        with network():
            answer = opener.open(urllib.request.Request(url, headers={**agent, **headers}), timeout=timeout)
    except HTTPError as error:
        with error:
            raise _error_of(error) from error
    with answer:
        if answer.status not in (200, 206):
            raise Refused(f"answers {answer.status}, without the file")
        yield answer


@contextmanager
def network() -> Iterator[None]:
    """Turn the errors of a network in the block into `Interrupted`, and those of certificates into `Refused`."""
    try:
        yield
    except (HTTPError, Refused):
        raise
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Refused(
                f"has a certificate that is not trusted ({reason.verify_message}): if your network has its own, set "
                "SSL_CERT_FILE to them"
            ) from error
        shown = "no answer in time" if isinstance(reason, TimeoutError) else str(reason) or type(reason).__name__
        raise Interrupted(f"cannot be read: {shown}") from error


def _error_of(error: HTTPError) -> OSError:
    answer = f"answers {error.code} {error.reason}".strip()
    if error.code == 416:
        return WrongRange(answer)
    if error.code in (401, 403, 407):
        return Refused(f"{answer}: it requires a login, or does not allow this download")
    if error.code in (404, 410):
        return Refused(f"{answer}: the file is not there any more")
    if error.code not in _PASSING:
        return Refused(answer)
    wait = _seconds(error.headers.get("Retry-After"))
    if wait is not None and wait > LONGEST_WAIT:
        return Refused(f"{answer}, and asks to wait for {math.ceil(wait / 60)} minutes: try again then")
    return Interrupted(answer, wait)


def _seconds(text: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
