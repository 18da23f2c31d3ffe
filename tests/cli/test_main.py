"""How every command ends."""

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
