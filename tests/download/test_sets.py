"""Downloads from a server on the loopback that fails in every way."""

import hashlib
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mhsvm.download import http, sets, transfer
from mhsvm.download.archives import DOWNLOADS, Archive, Download, list_downloads
from mhsvm.download.sets import download_set
from mhsvm.folder_lock import FolderLock

CONTENT = bytes(range(256)) * 40
NUM_BYTES = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content` under every name.

    Attributes:
        answers: Ways to answer, the first of which is used up by a request; then files are served as they should be.
        requests: Path, Range and If-Range of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.etag, self.with_ranges = CONTENT, '"1"', True
        self.answers: list[Callable[[_Handler], None]] = []
        self.requests: list[tuple[str, str | None, str | None]] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers["Range"], self.headers["If-Range"]))
        assert self.headers["Accept-Encoding"] == "identity"
        (self.server.answers.pop(0) if self.server.answers else _Handler.serve)(self)

    def serve(self, *, num=None, status=None, **headers):
        """Serve the file, or the part that is asked for, of which only `num` bytes are sent."""
        content, asked, known = self.server.content, self.headers["Range"], self.headers["If-Range"]
        start = 0
        if asked and self.server.with_ranges and known in (None, self.server.etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            headers.setdefault("Content_Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_response(status or (206 if start else 200))
        headers = {"Content_Length": str(len(content) - start), "ETag": self.server.etag, **headers}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[start:][:num])


def answer(**arguments):
    return lambda handler: handler.serve(**arguments)


def fail(code, **headers):
    def send(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return send


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def get(server, tmp_path, registered):
    """Download a set of one file, or of several: get(num_bytes=…, sha256=…); the pauses are in `get.pauses`."""
    pauses = []

    def run(*, names=("a.zip",), num_bytes=NUM_BYTES, sha256=SHA256, md5="", urls=None, **arguments):
        files = [
            Archive(name, urls if urls is not None else (f"{server.url}/{name}",), num_bytes, sha256, md5)
            for name in names
        ]
        name = f"small{len(DOWNLOADS.names())}"
        registered(DOWNLOADS, name, Download("Small", "CC0", "https://x.org", {"all": tuple(files)}, "By hand."))
        arguments = {"accept_license": True, "wait": pauses.append, "timeout": 5, **arguments}
        done = list(download_set(name, tmp_path / "out", **arguments))
        assert [file.path.read_bytes() for file in done] == [CONTENT] * len(files)
        return done

    run.pauses = pauses
    run.out = tmp_path / "out"
    return run


def names_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_is_complete_and_verified(get, server):
    (done,) = get()
    assert (done.was_there, done.verified_by) == (False, "byte count and sha256")
    assert names_in(get.out) == ["a.zip"]
    assert server.requests == [("/a.zip", None, None)]
    (done,) = get()
    assert (done.was_there, len(server.requests)) == (True, 1)


@pytest.mark.parametrize(
    ("known", "verified_by"),
    [
        ({"sha256": "", "md5": hashlib.md5(CONTENT).hexdigest(), "num_bytes": None}, "md5"),
        ({"sha256": "", "num_bytes": None}, "nothing"),
        ({"sha256": ""}, "byte count"),
    ],
)
def test_fewer_facts_are_known(get, known, verified_by):
    assert get(**known)[0].verified_by == verified_by


def test_a_broken_connection_goes_on(get, server):
    server.answers = [answer(num=3000), answer(num=2000)]
    get()
    assert [asked for _, *asked in server.requests] == [[None, None], ["bytes=3000-", '"1"'], ["bytes=5000-", '"1"']]
    assert get.pauses == [2, 4]


def test_the_next_call_goes_on(get, server):
    server.answers = [answer(num=3000)]
    with pytest.raises(
        OSError, match=r"a\.zip ends after 3,000 of 10,240 bytes, 1 times in a row. 3,000 bytes are kept"
    ):
        get(retries=0)
    assert names_in(get.out) == ["a.zip.partial", "a.zip.partial.json"]
    assert (get.out / "a.zip.partial").read_bytes() == CONTENT[:3000]
    get()
    assert server.requests[1:] == [("/a.zip", "bytes=3000-", '"1"')]
    assert names_in(get.out) == ["a.zip"]


def test_an_interrupt_keeps_the_bytes(get, server, monkeypatch):
    monkeypatch.setattr(transfer, "_CHUNK", 1000)

    def interrupt(num_bytes, total):
        if num_bytes >= 4000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sets, "_bar", lambda *_, **__: nullcontext(interrupt))
        with pytest.raises(KeyboardInterrupt):
            get()
    assert (get.out / "a.zip.partial").stat().st_size >= 3000
    get()
    assert server.requests[1][1].startswith("bytes=")


def test_a_server_without_ranges_starts_again(get, server):
    server.with_ranges, server.answers = False, [answer(num=3000)]
    get()
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=3000-"]


def test_a_file_that_changes_between_attempts_starts_again(get, server):
    server.content = b"old" * 1000
    server.answers = [answer(num=500)]
    with pytest.raises(OSError, match="ends after 500"):
        get(num_bytes=None, retries=0)
    server.content, server.etag = CONTENT, '"2"'
    get(num_bytes=None)
    assert server.requests[1][1:] == ("bytes=500-", '"1"')


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_bytes_of_an_unknown_version_are_verified_in_the_end(get, server, etag):
    server.content = b"old" * 1000
    server.answers = [answer(num=500, ETag=etag)]
    with pytest.raises(OSError, match="ends after 500"):
        get(num_bytes=None, retries=0)
    server.content = CONTENT
    get(num_bytes=None)
    # the first bytes were those of the old version: the checksum is wrong, and all of them are read again
    assert [asked for _, *asked in server.requests[1:]] == [["bytes=500-", None], [None, None]]


def test_versions_that_change_in_one_call_are_read_again(get, server):
    def serve_old(handler):
        server.content = b"old" * 1000
        handler.serve(num=500, ETag=None)
        server.content = CONTENT

    server.answers = [serve_old]
    get(num_bytes=None)
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=500-", None]


def test_without_a_checksum_and_a_version_nothing_is_continued(get, server):
    server.answers = [answer(num=500, ETag=None)]
    get(sha256="")
    assert [asked for _, asked, _ in server.requests] == [None, None]


def test_dates_name_versions_too(get, server):
    date = "Mon, 01 Jun 2020 10:00:00 GMT"
    server.answers = [answer(num=500, ETag=None, Last_Modified=date)]
    server.etag = date
    get(sha256="")
    assert server.requests[1][1:] == ("bytes=500-", date)


def test_a_complete_partial_file_is_only_verified(get, server):
    get.out.mkdir()
    (get.out / "a.zip.partial").write_bytes(CONTENT)
    get()
    assert server.requests == []


@pytest.mark.parametrize("content", [CONTENT + b"more", CONTENT[::-1]])
def test_a_wrong_partial_file_is_replaced(get, server, content):
    get.out.mkdir()
    (get.out / "a.zip.partial").write_bytes(content)
    (get.out / "a.zip.partial.json").write_text("{}")
    get()
    assert len(server.requests) == 1


def test_a_part_that_the_server_has_not_starts_again(get, server):
    server.answers = [answer(num=3000), fail(416)]
    get()
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=3000-", None]


def test_another_part_than_the_one_asked_for_is_not_used(get, server):
    server.answers = [answer(num=3000), answer(Content_Range=f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")]
    get()
    assert [asked for _, asked, _ in server.requests] == [None, "bytes=3000-", None]


def test_wrong_bytes_get_no_name(get, server):
    server.content = CONTENT[::-1]
    with pytest.raises(
        ValueError, match=r"has sent another file: its sha256 is .*, and that of a\.zip is .*Nothing is kept"
    ):
        get()
    assert names_in(get.out) == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content_Length": "9999"}, r"has 9,999 bytes, and the file has 10,240: it is another version"),
        ({"Content_Encoding": "gzip"}, r"sends the file in another form \(Content-Encoding gzip\)"),
        (
            {"Content_Type": "text/html; charset=utf-8"},
            r"sends a web page in place of the file: it may require a login",
        ),
        ({"status": 203}, r"answers 203, without the file"),
    ],
)
def test_answers_that_are_not_the_file(get, server, headers, message):
    server.answers = [answer(**headers)]
    with pytest.raises(OSError, match=rf"a\.zip cannot be downloaded: http://.*a\.zip {message}"):
        get()
    assert names_in(get.out) == []


def test_more_bytes_than_the_file_has(get, server):
    server.content = CONTENT + b"more"
    server.answers = [answer(Content_Length=None)]
    with pytest.raises(OSError, match=r"sends more than the 10,240 bytes of the file"):
        get()
    assert names_in(get.out) == []


def test_an_answer_without_a_length(get, server):
    server.answers = [answer(Content_Length=None)]
    get(num_bytes=None)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (403, "answers 403 Forbidden: it requires a login, or does not allow this download"),
        (404, "answers 404 Not Found: the file is not there any more"),
        (400, "answers 400 Bad Request. Other places are given by `url` or `mirror`"),
    ],
)
def test_answers_that_do_not_pass(get, server, code, message):
    server.answers = [fail(code)]
    with pytest.raises(OSError, match=message):
        get()
    assert (len(server.requests), get.pauses) == (1, [])


@pytest.mark.parametrize("code", [429, 503])
def test_answers_that_pass(get, server, code):
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=300), usegmt=True)
    server.answers = [
        fail(code, Retry_After="7"),
        fail(code),
        fail(code, Retry_After=soon),
        fail(code, Retry_After="x"),
    ]
    get()
    assert get.pauses[:2] == [7, 4]
    assert 290 < get.pauses[2] <= 300
    assert get.pauses[3] == 16


def test_a_long_pause_is_not_waited_for(get, server):
    server.answers = [fail(503, Retry_After="3600")]
    with pytest.raises(
        OSError, match="answers 503 Service Unavailable, and asks to wait for 60 minutes: try again then"
    ):
        get()


def test_failures_in_a_row_are_limited(get, server):
    server.answers = [fail(500)] * 4
    with pytest.raises(OSError, match="answers 500 Internal Server Error, 4 times in a row. 0 bytes are kept: run the"):
        get(retries=3)
    assert get.pauses == [2, 4, 8]


def test_connections_that_bring_much_are_no_failures(get, server, monkeypatch):
    monkeypatch.setattr(transfer, "_PROGRESS", 1000)
    server.answers = [answer(num=1500)] * 5
    get(retries=0)
    assert len(server.requests) == 6


def test_a_server_that_hangs(get, server):
    release = threading.Event()
    server.answers = [lambda handler: (handler.serve(num=1000), release.wait(5)), lambda handler: release.wait(5)]
    with pytest.raises(OSError, match="cannot be read: no answer in time, 2 times in a row. 1,000 bytes are kept"):
        get(timeout=0.1, retries=1)
    release.set()


def test_no_server(get):
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1/a\.zip cannot be read: .*refused.*, 2 times in a row"):
        get(urls=("http://127.0.0.1:1/a.zip",), retries=1)


def test_redirects_are_followed_to_other_hosts(get, server):
    with Server() as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        place = other.url.replace("127.0.0.1", "localhost")
        server.answers = [fail(302, Location=f"{place}/b"), fail(307, Location=f"{place}/b")]
        other.answers = [answer(num=3000)]
        get()
        assert other.requests == [("/b", None, None), ("/b", "bytes=3000-", '"1"')]
        other.shutdown()


def test_bad_redirects(get, server):
    server.answers = [fail(302, Location="ftp://127.0.0.1/a.zip")]
    with pytest.raises(OSError, match=r"a place is an address that starts with https:// or http://, not 'ftp:"):
        get()
    server.answers = [fail(302, Location="/a.zip")] * 20
    with pytest.raises(OSError, match="answers 302 "):
        get()
    secure = http.urllib.request.Request("https://x.org/a.zip")
    with pytest.raises(http.Refused, match="redirects from https to http://x.org/b, where anybody on the way"):
        http._Redirects().redirect_request(secure, None, 302, "Found", {}, "http://x.org/b")


def test_the_next_place_is_used(get, server):
    server.answers = [fail(404)]
    get(urls=(f"{server.url}/one", f"{server.url}/two"))
    assert [path for path, *_ in server.requests] == ["/one", "/two"]


@pytest.mark.parametrize("given", [{"mirror": "{}/m/"}, {"url": ["{}/m/a.zip"]}, {"url": ["a.zip={}/m/a.zip"]}])
def test_other_places(get, server, given):
    key, value = next(iter(given.items()))
    value = [each.format(server.url) for each in value] if isinstance(value, list) else value.format(server.url)
    get(urls=(), **{key: value})
    assert server.requests[0][0] == "/m/a.zip"


def test_several_files_and_parts(get, server):
    done = get(names=("a.zip", "b.zip"), url=[f"b.zip={server.url}/c"], parts=["all"])
    assert [file.path.name for file in done] == ["a.zip", "b.zip"]
    assert [path for path, *_ in server.requests] == ["/a.zip", "/c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accept_license": False}, r"has the license CC0, see https://x.org: read it and give `accept_license`"),
        ({"parts": ["al"]}, r"unknown part 'al'; Small has all\. Did you mean 'all'\?"),
        ({"urls": ()}, r"By hand\. To download a\.zip from a place you know, give its `url`"),
        ({"url": ["b.zip=https://x.org/b.zip"]}, r"`url` is NAME=URL, where NAME is a\.zip; received 'b\.zip="),
        ({"mirror": "file:///tmp"}, r"a place is an address that starts with https:// or http://, not 'file:"),
    ],
)
def test_wrong_arguments(get, arguments, message):
    with pytest.raises(ValueError, match=message):
        get(**arguments)
    assert not get.out.exists()


def test_a_file_that_is_there_is_never_replaced(get, server):
    get.out.mkdir()
    (get.out / "a.zip").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"a\.zip is there and is another file: it has 4 bytes.* Move it away"):
        get()
    assert ((get.out / "a.zip").read_bytes(), server.requests) == (b"mine", [])


def test_space_is_checked_before_the_first_byte(get, server, monkeypatch):
    usage = type(sets.shutil.disk_usage("/"))
    monkeypatch.setattr(sets.shutil, "disk_usage", lambda _: usage(10, 5, 5))
    with pytest.raises(OSError, match=r"the files need 0\.00 GiB more, and 0\.00 GiB are free in"):
        get()
    assert server.requests == []
    with pytest.raises(OSError, match=r"a\.zip has 10,240 more bytes, and 5 are free in .*: make space"):
        get(num_bytes=None)
    assert names_in(get.out) == ["a.zip.partial.json"]


def test_one_download_at_a_time_in_a_folder(get):
    get.out.mkdir()
    with FolderLock("a test") as lock:
        lock.hold(get.out)
        with pytest.raises(ValueError, match="a download is running in"):
            get()


def test_a_proxy_of_the_environment_is_used(get, server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    get(urls=("http://files.example/a.zip",))
    assert server.requests[0][0] == "http://files.example/a.zip"


def test_the_table_is_consistent():
    for name in list_downloads():
        for files in DOWNLOADS[name].parts.values():
            for file in files:
                assert len(file.sha256) in (0, 64)
                assert len(file.md5) in (0, 32)
                assert file.checksum[1], file.name
                assert all(url.startswith("https://") for url in file.urls)
        assert DOWNLOADS[name].terms.startswith("https://")
