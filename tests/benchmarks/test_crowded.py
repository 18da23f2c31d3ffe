import pytest

from benchmarks import crowded
from benchmarks.crowded import WORKLOADS, bench_crowded, crowded_rows

# its images per second are its threads times the letters of the workload
CHILD = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    print(float(sys.argv[1]) * len(line.rsplit(maxsplit=1)[0]), flush=True)
"""


@pytest.fixture
def _quick_child(monkeypatch, tmp_path):
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    monkeypatch.setattr(crowded, "_CHILD", child)


@pytest.mark.usefixtures("_quick_child")
def test_every_combination_is_measured_in_turn(tmp_path):
    report = bench_crowded(threads=3, rounds=2, seconds=0.0, baseline=tmp_path)
    assert len(report["results"]) == 2 * len(WORKLOADS) * 2 * 2
    assert all(len(row["all"]) == 2 for row in report["results"])
    rows = crowded_rows(report)
    assert [row[:2] for row in rows] == [(tree, name) for tree in ("this", "baseline") for name in WORKLOADS]
    for row in rows:
        length = len(row[1])
        assert row[2:] == (f"{length:.1f}", f"{3 * length:.1f}", f"{3 * length:.1f}", "3.00", "1.00", "1.00")


def test_a_process_that_does_not_start(monkeypatch, tmp_path, capfd):
    child = tmp_path / "child.py"
    child.write_text("raise SystemExit('no such module')")
    monkeypatch.setattr(crowded, "_CHILD", child)
    with pytest.raises(ValueError, match="the benchmark's process does not start in"):
        bench_crowded(rounds=1)
    assert "no such module" in capfd.readouterr().err
