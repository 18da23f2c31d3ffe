import json
from dataclasses import asdict

import pytest
import torch

from benchmarks.scan import PHASES, bench_scan, useful_bytes
from mhsvm.ops.scan import chunked
from mhsvm.ops.verify import ScanShape
from tests.fixtures.backends import ScanBackend

CPU = torch.device("cpu")
SHAPES = (ScanShape(2, 4, 9, 2), ScanShape(1, 6, 5, 1))


def run(**options):
    return bench_scan(device=CPU, **{"shapes": SHAPES, "seconds": 0.001, **options})


@pytest.fixture
def unavailable():
    return ScanBackend("absent", chunked.selective_scan, unavailable_reason=lambda: "needs a unicorn")


def test_report(set_scan_backends, unavailable):
    set_scan_backends(unavailable)
    report = json.loads(json.dumps(run()))
    assert (report["schema"], report["benchmark"], report["dtype"]) == (1, "scan", "float32")
    assert report["versions"]["torch"] == torch.__version__
    assert {"mhsvm", "commit", "python", "triton", "mamba_ssm"} <= set(report["versions"])
    assert report["device"]["name"] == "cpu"
    assert report["device"]["memory_bytes"] > 0
    rows = report["results"]
    expected = [(asdict(shape), "chunked", phase) for shape in SHAPES for phase in PHASES]
    assert [(row["shape"], row["backend"], row["phase"]) for row in rows] == expected
    for row in rows:
        lower, upper = row["quartiles_s"]
        assert 0 < lower <= row["median_s"] <= upper
        assert row["samples"] >= 5
        assert row["bytes_per_s"] == pytest.approx(row["useful_bytes"] / row["median_s"])
        assert row["share_of_copy_rate"] == pytest.approx(row["bytes_per_s"] / report["copy_bytes_per_s"])
        assert row["peak_bytes"] is None
        assert set(row["errors"]) == {"y", *(f"gradient of {x}" for x in ("u", "delta", "A", "B", "C", "D"))} | {
            "gradient of delta_bias"
        }
    skipped = {"backend": "absent", "reason": "needs a unicorn"}
    assert report["skipped"] == [{"shape": asdict(shape), **skipped} for shape in SHAPES]


def test_named_backends_are_timed_together(set_scan_backends):
    set_scan_backends()
    report = run(backends=["reference", "chunked"], shapes=SHAPES[:1], dtype=torch.bfloat16)
    assert [row["backend"] for row in report["results"]] == ["reference", "chunked"] * 2
    assert report["dtype"] == "bfloat16"


def test_a_wrong_backend_is_not_timed(set_scan_backends, wrong_gradient):
    set_scan_backends(wrong_gradient)
    message = (
        r"backend 'wrong' is wrong and not timed: on \(b, d, l, g\) = \(2,4,9,2\) its gradient of B is off by "
        r"1\.0e\+00 of its norm against the reference; the limit is 1e-04"
    )
    with pytest.raises(ValueError, match=message):
        run()


def test_a_backend_that_gives_nan_is_not_timed(set_scan_backends, not_a_number):
    set_scan_backends(not_a_number)
    with pytest.raises(ValueError, match="backend 'nan' is wrong and not timed: .* its y is off by nan"):
        run()


def test_backends_that_cannot_be_compared(set_scan_backends, unavailable):
    set_scan_backends(unavailable)
    with pytest.raises(
        ValueError, match="backend: 'absent' cannot run selective_scan: needs a unicorn; use one of: auto, chunked"
    ):
        run(backends=["absent"])
    with pytest.raises(ValueError, match="backend: unknown name 'cuda'; known are: auto, absent, chunked, reference"):
        run(backends=["chunked", "cuda"])


def test_a_cpu_captures_nothing():
    with pytest.raises(ValueError, match="calls are captured as CUDA graphs, which need a GPU; the device is cpu"):
        run(captured=True)


@pytest.mark.parametrize("steps_last", [False, True])
def test_inputs_come_in_the_memory_order_of_a_backend(set_scan_backends, monkeypatch, steps_last):
    seen = set()

    def scan(u, delta, A, B, C, *arguments):
        seen.add(tuple(x.movedim(1, -1).is_contiguous() for x in (u, delta, B, C)))
        return chunked.selective_scan(u, delta, A, B, C, *arguments)

    set_scan_backends(ScanBackend("watching", scan))
    monkeypatch.setattr("benchmarks.scan._STEPS_LAST", ("watching",) if steps_last else ())
    run(shapes=SHAPES[:1])
    assert seen == {(steps_last,) * 4}


def test_useful_bytes_are_those_of_the_published_table():
    first = ScanShape(32, 384, 4096, 16)
    assert useful_bytes(first, torch.float32, "forward") == pytest.approx(872e6, rel=1e-3)
    assert useful_bytes(first, torch.bfloat16, "forward") == pytest.approx(436e6, rel=1e-3)
    assert useful_bytes(ScanShape(32, 768, 4096, 4), torch.float32, "forward") == pytest.approx(1275e6, rel=1e-3)
    # forward; u, delta, B, C and the gradient of y again; four gradients
    small = ScanShape(1, 1, 1, 1, n=1)
    assert useful_bytes(small, torch.float32, "forward") == 5 * 4
    assert useful_bytes(small, torch.float32, "forward+backward") == (5 + 5 + 4) * 4
