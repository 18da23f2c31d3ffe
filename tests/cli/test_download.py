"""`mhsvm download`: what it asks, prints and refuses; the transfer has its tests in tests/download."""

import hashlib
import io
import sys

import pytest

from mhsvm.cli import download
from mhsvm.cli.main import run
from mhsvm.download import sets
from mhsvm.download.archives import DOWNLOADS, Archive, Download
from mhsvm.download.transfer import Transfer

MD5 = hashlib.md5(b"abc").hexdigest()


@pytest.fixture
def small(registered, monkeypatch):
    """A set of one file, which comes without a server."""
    archive = Archive("a.zip", ("https://x.org/a.zip",), 3, md5=MD5)
    registered(DOWNLOADS, "small", Download("Small", "CC0", "https://x.org", {"all": (archive,)}, "Images by hand."))

    def get(transfer):
        transfer.partial.path.write_bytes(b"abc")
        transfer.report(3, 3)
        return False

    monkeypatch.setattr(Transfer, "run", get)
    return "small"


def test_a_download_names_the_next_command(small, workplace, capsys):
    for state in ("complete", "was complete"):
        assert run(download.main, [small, "--out", "d", "--accept-license"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"d/a.zip: {state}, verified by byte count and md5",
            "Images by hand.",
            "next: mhsvm prepare small --source d --out data/small.h5",
        ]


@pytest.mark.parametrize(("text", "status"), [("y\n", 0), ("YES\n", 0), ("n\n", 2), ("", 2)])
def test_the_license_is_asked_for_in_a_terminal(small, workplace, monkeypatch, capsys, text, status):
    for stream in (answers := io.StringIO(text), sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", answers)
    assert run(download.main, [small, "--out", "d"]) == status
    shown = capsys.readouterr().err
    assert shown.startswith("Small\nlicense: CC0, see https://x.org\nDo you accept it? [y/N] ")
    assert ("error: small has the license CC0" in shown) == bool(status)


def test_without_a_terminal_the_license_must_be_accepted(small, workplace, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run(download.main, [small, "--out", "d"]) == 2
    message = "error: small has the license CC0, see https://x.org: read it and give --accept-license\n"
    assert capsys.readouterr().err == message


def test_the_list_downloads_nothing(capsys):
    assert run(download.main, ["isic2018", "--part", "val", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ISIC 2018 task 1: 2594 / 100 / 1000 images with masks"
    assert lines[1] == "license: CC BY-NC 4.0, see https://challenge.isic-archive.com/data/#2018"
    assert [line.split()[:3] for line in lines[2:]] == [
        ["file", "bytes", "checksum"],
        ["ISIC2018_Task1-2_Validation_Input.zip", "239,231,159", "sha256"],
        ["ISIC2018_Task1_Validation_GroundTruth.zip", "759,706", "sha256"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["isic2071"], "unknown download 'isic2071'; known: "),
        (["isic2017"], "give the folder to download into with --out"),
        (["ph2", "--out", "d", "--accept-license"], "PH2 has no official download any more"),
        (["ph2", "--out", "d", "--accept-license"], "To download PH2.zip from a place you know, give its --url"),
        (["isic2017", "--out", "d", "--accept-license", "--part", "tset"], "Did you mean 'test'?"),
        (
            ["isic2017", "--out", "d", "--accept-license", "--mirror", "x"],
            "starts with https:// or http://, not 'x/ISIC",
        ),
        (["isic2017", "--out", "d", "--retries", "0"], "takes a whole number from 1 on"),
    ],
)
def test_errors(arguments, message, workplace, capsys):
    try:
        status = run(download.main, arguments)
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (workplace / "d").exists()


def test_bars_count_bytes(small, workplace, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with sets._bar("a.zip", progress=True) as report:
        report(512, 1024)
        report(1024, 1024)
    assert "a.zip: 100%" in capsys.readouterr().err
