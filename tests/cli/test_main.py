"""How every command ends."""

import io
import sys

import pytest
import torch

from mhsvm.cli.main import main, run


def failing(error):
    def command(argv):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("the rule"), 2, "error: the rule"),
        (FileNotFoundError("no file"), 2, "error: no file"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "error: memory does not suffice: try a smaller --batch-size"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_user_can_mend_is_one_message(error, status, message, capsys):
    assert run(failing(error)) == status
    printed = capsys.readouterr().err
    assert printed.startswith(message)
    assert "Traceback" not in printed


def test_a_defect_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(failing(RuntimeError("shapes differ")))


def test_an_unknown_command_lists_the_known(capsys):
    assert main(["trian"]) == 2
    assert "unknown command 'trian'; known: train, test, predict" in capsys.readouterr().err


@pytest.mark.parametrize(("encoding", "printed"), [("ascii", rb"l\xe4sion \u76ae"), ("cp1252", b"l\xe4sion \\u76ae")])
def test_a_name_that_the_output_cannot_encode_is_escaped(monkeypatch, encoding, printed):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding))

    def command(argv):
        print("läsion 皮", flush=True)
        return 0

    assert run(command) == 0
    assert content.getvalue().rstrip() == printed


def test_the_list_of_commands_is_printed_in_every_encoding(monkeypatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii", write_through=True))
    assert main([]) == 0
    assert content.getvalue().startswith(rb"usage: mhsvm COMMAND \u2026")
