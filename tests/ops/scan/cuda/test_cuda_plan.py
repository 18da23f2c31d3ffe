"""The variants of the kernels, and the split of scans. Shapes are (b, l, g, e, n)."""

import ctypes
import itertools
import re

import pytest
import torch

from mhsvm.ops.cuda.cubins import _options, _texts
from mhsvm.ops.cuda.nvrtc import NvrtcError, load_nvrtc
from mhsvm.ops.scan.cuda import cuda_plan, parameters
from mhsvm.ops.scan.cuda.cuda_plan import Alignments, Options, Shape, Types

FOLDER = cuda_plan._FOLDER
# Of a block, on the GPUs with the least (compute capability 8.6 and 8.9).
MOST_SHARED_BYTES = 99 * 1024
NO_ALIGNMENT = Alignments(4, 4, 4, 4, 4)


def types_of(dtype):
    saved = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    return Types(dtype, dtype, dtype, dtype, saved, saved, dtype)


# All but the last two are those of MHS-VM and VM-UNet at batch 32.
@pytest.mark.parametrize(
    ("shape", "forward", "backward"),
    [
        ((32, 4096, 16, 24, 16), (4096, 1), (2048, 2)),
        ((32, 1024, 16, 48, 16), (1024, 1), (1024, 1)),
        ((32, 256, 16, 96, 16), (256, 1), (256, 1)),
        ((32, 64, 16, 192, 16), (64, 1), (64, 1)),
        ((32, 4096, 4, 192, 16), (4096, 1), (4096, 1)),
        ((32, 1024, 1, 12, 16), (64, 16), (64, 16)),
        ((1, 20000, 1, 8, 16), (320, 63), (320, 63)),
    ],
)
def test_scans_are_split_where_warps_are_few(shape, forward, backward):
    shape = Shape(*shape)
    layout = cuda_plan.forward_layout(shape, gate=False, save=False, two_bytes=False)
    assert cuda_plan.split_forward(shape, layout) == forward
    assert cuda_plan.split_backward(shape, cuda_plan.backward_layout(shape, gate=False)) == backward


@pytest.mark.parametrize("n", [1, 16, 17, 64])
def test_every_block_fits_on_every_gpu(n):
    for b, e, gate, dtype in itertools.product(
        (1, 4096), (1, 12, 24, 48, 96, 192, 200), (False, True), (torch.float32, torch.bfloat16)
    ):
        shape, types, options = (
            Shape(b, 100, 1, e, n),
            types_of(dtype),
            Options(True, True, gate, save=True, reverse=True),
        )
        layouts = {
            "forward": cuda_plan.forward_layout(shape, gate=gate, save=True, two_bytes=dtype.itemsize == 2),
            "backward": cuda_plan.backward_layout(shape, gate=gate),
            "chunk": cuda_plan.chunk_layout(e, n),
        }
        for source, layout in layouts.items():
            variant = cuda_plan.variant(source, (e, n), layout, types, NO_ALIGNMENT, options)
            assert variant.shared_bytes <= MOST_SHARED_BYTES
            assert variant.threads * layout.min_blocks <= 2048


def test_scans_that_differ_in_size_only_have_one_variant():
    layout, options = cuda_plan.Layout(1, 1, 16, 4), Options(True, False, False)
    first, second = (
        cuda_plan.variant("forward", (e, 16), layout, types_of(torch.float32), NO_ALIGNMENT, options) for e in (8, 24)
    )
    assert first is second


@pytest.mark.parametrize(
    ("source", "name", "structure"),
    [
        ("forward", "Forward", parameters.Forward),
        ("chunk", "Chunk", parameters.Chunk),
        ("backward", "Backward", parameters.Backward),
        ("sums", "Rows", parameters.SumRows),
        ("sums", "Parts", parameters.SumParts),
    ],
)
def test_structures_are_those_of_the_sources(source, name, structure):
    text = re.search(rf"struct {name} \{{(.*?)\}};", (FOLDER / f"{source}.cu").read_text(encoding="utf-8"), re.DOTALL)[
        1
    ]
    fields = []
    for declaration in text.split(";")[:-1]:
        pointer = re.fullmatch(r"\s*(?:const )?\w+\* (\w+)", declaration)
        if pointer:
            fields.append((pointer[1], ctypes.c_void_p))
            continue
        kind, names = declaration.strip().split(None, 1)
        fields += [(field.strip(), {"i64": ctypes.c_int64, "int": ctypes.c_int}[kind]) for field in names.split(",")]
    assert [(field.removeprefix("p_"), kind) for field, kind in structure._fields_] == fields


@pytest.mark.parametrize("source", ["forward", "chunk", "backward"])
def test_every_macro_has_a_value(source):
    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in (f"{source}.cu", "scan.cuh"))
    shape = Shape(2, 100, 1, 24, 16)
    layout = cuda_plan.backward_layout(shape, gate=True)
    variant = cuda_plan.variant(
        source, (24, 16), layout, types_of(torch.float32), NO_ALIGNMENT, Options(True, False, True)
    )
    given = {name for name, _ in variant.constants} | {"SHARED_BYTES"}
    used = {name for name in re.findall(r"#(?:el)?if (?:[^\n]*?)\b([A-Z][A-Z_]+)\b", text) if name != "REVERSE"}
    assert used <= given
    # every one is described in the legend
    legend = (FOLDER / "scan.cuh").read_text(encoding="utf-8").partition("#include")[0]
    described = re.findall(r"[A-Z][A-Z_]*", legend)
    assert given - {"SHARED_BYTES", "VECTOR_BC"} <= set(described)


@pytest.mark.parametrize(
    ("source", "dtype", "gate"), [("forward", torch.bfloat16, True), ("chunk", torch.float16, False)]
)
def test_variants_compile(source, dtype, gate):
    """With any NVRTC, for the oldest GPU; the shared memory is checked by the source itself."""
    try:
        nvrtc = load_nvrtc()
    except NvrtcError as error:
        pytest.skip(str(error))
    shape = Shape(2, 100, 1, 12, 5)
    layout = cuda_plan.forward_layout(shape, gate=gate, save=True, two_bytes=True)
    layout = cuda_plan.chunk_layout(12, 5) if source == "chunk" else layout
    options = Options(True, True, gate, save=True, reverse=True)
    variant = cuda_plan.variant(source, (12, 5), layout, types_of(dtype), Alignments(8, 8, 2, 4, 2), options)
    text, headers = _texts(variant.source)
    assert nvrtc.compile(text, variant.source.name, _options(variant, 80), headers)[:4] == b"\x7fELF"
