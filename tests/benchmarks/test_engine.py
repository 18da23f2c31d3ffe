"""The engine's benchmark times what it has checked."""

import numpy as np
import pytest

from benchmarks import engine
from benchmarks.cli import main
from mhsvm.native import library


def test_a_wrong_engine_is_not_timed(monkeypatch):
    monkeypatch.setattr(engine, "SIZE", 32)
    image = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(ValueError, match="the engine is not timed: its probabilities are"):
        engine.check_probability(np.full((1, 1, 32, 32), 9, np.float32), image)


@pytest.mark.skipif(library.find_compiler() is None, reason="needs a C compiler")
def test_candidates_are_compared_with_the_last(monkeypatch, capsys):
    class Child:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(engine, "SIZE", 32)
    monkeypatch.setattr(engine, "_child", lambda tree, backend: Child())
    monkeypatch.setattr(engine, "_ask", lambda child: 0.5)
    assert main(["engine", "--rounds", "2"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("engine", "network"))]
    assert rows[0].split()[0] == "engine"
    assert float(rows[0].split()[1]) <= engine.LIMIT
    assert rows[-1].split() == ["network,", "cpu", "500.00", "ms", "1.00"]
