"""Errors of independent checks are raised together."""

import pytest

from mhsvm.errors import Errors, SeveralErrors


def test_the_only_error_stays_as_it_is():
    errors = Errors()
    assert not errors
    errors.raise_if_any("reasons")
    with errors.collected():
        raise FileNotFoundError("no file")
    assert errors
    with pytest.raises(FileNotFoundError, match="^no file$"):
        errors.raise_if_any("reasons")


def test_several_errors_are_listed_once_each_and_flat():
    inner, outer = Errors(), Errors()
    for message in ("one", "two\nits second line"):
        inner.add(ValueError(message))
    outer.add(ValueError("one"))
    with outer.collected():
        inner.raise_if_any("inner reasons")
    with outer.collected():
        raise FileExistsError("three")
    with pytest.raises(SeveralErrors) as error:
        outer.raise_if_any("reasons")
    assert str(error.value) == "3 reasons:\n  one\n  two\n    its second line\n  three"


def test_defects_pass():
    errors = Errors()
    with pytest.raises(KeyError), errors.collected():
        raise KeyError("defect")
    assert not errors
