"""Kernels compiled ahead for a GPU that is not present: variants are collected, compiled in processes, and found."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import mhsvm
from mhsvm.ops import triton_support
from mhsvm.ops.compiling.ahead import compile_ahead
from mhsvm.ops.fused.skip_bridge import triton_skip_bridge

pytestmark = [
    pytest.mark.usefixtures("_triton"),
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="nothing is compiled in the interpreter"),
    # Triton 3.9 will change the default; the kernels pass the option
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION"),
]
CPU = torch.device("cpu")

# compiles, is refused by the compiler, ends the process, never ends
MODULES = {
    "plain_kernels": "",
    "refused_kernels": "    tl.static_assert(N < 0, 'N is not negative')\n",
    "deadly_kernels": "",
    "endless_kernels": "",
}
TOP = {
    # only in the processes that compile no GPU is visible
    "deadly_kernels": "if os.environ.get('CUDA_VISIBLE_DEVICES') == '':\n    os._exit(3)\n",
    "endless_kernels": "if os.environ.get('CUDA_VISIBLE_DEVICES') == '':\n    time.sleep(600)\n",
}
KERNEL = """
@triton.jit
def double_kernel(p_x, N: tl.constexpr):
{line}    o = tl.arange(0, N)
    tl.store(p_x + o, 2 * tl.load(p_x + o))
"""


class AbsentGPU:
    """A device to compile kernels for; nothing can be launched on it."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return "absent"

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Triton treats tensors of the CPU as those of a GPU, and starts with an empty folder."""
    from triton.runtime import driver

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(triton_support, "unavailable_reason", lambda: None)
    # reading the active driver would look for a GPU
    before = dict(vars(driver))
    driver.set_active(AbsentGPU())
    yield
    vars(driver).update(before)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The kernels of MODULES, by module."""
    folder = tmp_path / "toys"
    folder.mkdir()
    head = "import os\nimport time\n\nimport triton\nimport triton.language as tl\n\n"
    for name, line in MODULES.items():
        (folder / f"{name}.py").write_text(head + TOP.get(name, "") + KERNEL.format(line=line), encoding="utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    return lambda name: getattr(__import__(name), "double_kernel")  # noqa: B009


def collect(run, module=None):
    from mhsvm.ops.compiling.dry_pass import dry_pass

    return dry_pass(run, module or nn.Identity(), device=CPU)


def toy_variants(kernel, *sizes):
    x = torch.ones(64)
    variants = collect(lambda: [kernel[(1,)](x, N=n) for n in sizes])
    assert len(variants) == len(sizes)
    assert (x == 1).all()
    return variants


def bridge_inputs():
    skips = [torch.rand(2, c, s, s, requires_grad=True) for c, s in ((4, 8), (8, 4))]
    weights = [torch.rand(1, 2, 7, 7), torch.rand(1), torch.rand(1, 1, 3)]
    return skips, *weights, [torch.rand(c, 12) for c in (4, 8)], [torch.rand(c) for c in (4, 8)]


def run_bridge(inputs):
    outs = triton_skip_bridge(*inputs)
    assert all((out == 0).all() for out in outs)
    return torch.autograd.grad(sum(out.sum() for out in outs), inputs[0])


def test_kernels_with_tuples_compiled_in_other_processes_are_found_by_their_launches(gpu, monkeypatch, caplog):
    from triton.compiler import ASTSource
    from triton.runtime.jit import JITFunction

    from mhsvm.ops.compiling.variants import compile_variants, is_on_disk

    caplog.set_level("INFO")
    inputs = bridge_inputs()
    variants = collect(lambda: run_bridge(inputs))
    names = {variant.source.fn.__name__ for variant in variants}
    assert {"skip_bridge_fwd_kernel_statistics", "skip_bridge_fwd_kernel", "skip_bridge_bwd_kernel_weights"} <= names
    assert not any(map(is_on_disk, variants))
    assert any("*fp32" in types for variant in variants for types in variant.source.signature.values())
    compile_variants(variants, num_processes=2)
    assert all(map(is_on_disk, variants))
    assert f"compiled {len(variants)} of {len(variants)} kernels that were not on disk, in 2 processes" in caplog.text

    # all of a launch except its last step; a compilation would raise
    launched = []
    run = JITFunction.run
    monkeypatch.setattr(
        JITFunction,
        "run",
        lambda self, *args, grid, warmup, **rest: launched.append(run(self, *args, grid=grid, warmup=True, **rest)),
    )
    monkeypatch.setattr(ASTSource, "make_ir", None)
    outs = triton_skip_bridge(*inputs)
    torch.autograd.grad(sum(out.sum() for out in outs), inputs[0])
    assert len(launched) >= len(variants)
    assert {kernel.name for kernel in launched} == names

    monkeypatch.setattr("mhsvm.ops.compiling.variants.subprocess.Popen", None)
    compile_variants(collect(lambda: run_bridge(inputs)), num_processes=2)


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_the_c_function_that_launches_a_kernel_is_compiled_with_it(gpu, toy, monkeypatch, ends):
    from triton.backends.nvidia import driver

    from mhsvm.ops.compiling import process as compile_process

    built = []

    def build(source, metadata):
        built.append((source, metadata))
        if ends == "badly":
            raise AssertionError("libcuda.so cannot be found")

    monkeypatch.setattr(driver, "CudaLauncher", build)
    (variant,) = toy_variants(toy("plain_kernels"), 8)
    monkeypatch.delattr(driver, "make_launcher", raising=False)
    compile_process.build_launcher(variant.source, "metadata")
    # here Triton has one for all kernels
    assert not built
    monkeypatch.setattr(driver, "make_launcher", None, raising=False)
    compile_process.build_launcher(variant.source, "metadata")
    assert built == [(variant.source, "metadata")]


def test_a_kernel_that_does_not_compile_is_left_to_its_launch(gpu, toy, caplog):
    from mhsvm.ops.compiling.variants import compile_in_parallel, is_on_disk

    caplog.set_level("INFO")
    refused = toy_variants(toy("refused_kernels"), 16)
    plain = toy_variants(toy("plain_kernels"), 16, 32)
    assert compile_in_parallel(refused + plain, num_processes=2) == 2
    assert all(map(is_on_disk, plain))
    assert not is_on_disk(refused[0])
    assert "compiled 2 of 3 kernels that were not on disk, in 2 processes" in caplog.text
    assert (
        "1 kernels that failed to compile ahead are left to their launch, the first one double_kernel: Compile"
        in caplog.text
    )
    assert "N is not negative" in caplog.text


def test_a_process_that_ends_takes_nothing_with_it_but_its_kernel(gpu, toy, caplog):
    from mhsvm.ops.compiling.variants import compile_in_parallel, is_on_disk

    caplog.set_level("INFO")
    deadly = toy_variants(toy("deadly_kernels"), 16)
    plain = toy_variants(toy("plain_kernels"), 16, 32)
    assert compile_in_parallel(deadly + plain, num_processes=2) == 2
    assert all(map(is_on_disk, plain))
    assert "the first one double_kernel: the process that compiled it has ended with status 3" in caplog.text


def test_what_cannot_be_handed_to_another_process_is_left_to_its_launch(gpu, toy, caplog):
    from mhsvm.ops.compiling.variants import compile_in_parallel

    plain = toy_variants(toy("plain_kernels"), 16, 32)
    plain[0].source.constants[(9,)] = lambda: 0
    assert compile_in_parallel(plain, num_processes=2) == 1
    assert "the first one double_kernel: Can't pickle" in caplog.text or "Can't get local object" in caplog.text
    assert compile_in_parallel(plain[:1], num_processes=2) == 0


def test_what_never_ends_is_given_up(gpu, toy, caplog):
    from mhsvm.ops.compiling.variants import compile_in_parallel

    start = time.monotonic()
    assert compile_in_parallel(toy_variants(toy("endless_kernels"), 16), num_processes=1, limit_s=0.5) == 0
    assert time.monotonic() - start < 60
    assert "has ended with status -9" in caplog.text


def test_a_single_kernel_is_left_to_its_launch(gpu, toy, monkeypatch):
    from mhsvm.ops.compiling.variants import compile_variants

    monkeypatch.setattr("mhsvm.ops.compiling.variants.subprocess.Popen", None)
    kernel = toy("plain_kernels")
    compile_variants(toy_variants(kernel, 16), num_processes=8)
    compile_variants(toy_variants(kernel, 16, 32), num_processes=1)


def test_one_process_of_a_machine_compiles_and_the_others_wait(gpu, caplog):
    from mhsvm.ops.compiling.variants import _alone_on_machine

    caplog.set_level("INFO")
    with _alone_on_machine() as alone, _alone_on_machine(limit_s=0.15) as second:
        assert alone
        assert not second
    assert "waiting for another process of this machine" in caplog.text
    assert "going on without it" in caplog.text
    with _alone_on_machine(limit_s=0) as alone:
        assert alone


def test_keys_do_not_depend_on_what_was_launched_before(gpu):
    from mhsvm.ops.compiling import process as compile_process
    from mhsvm.ops.fused import group_norm_kernels

    def settle():
        compile_process._settled.clear()
        for function in functions:
            compile_process.settle_key(function)
        return [function.cache_key for function in functions]

    functions = [x for x in vars(group_norm_kernels).values() if hasattr(x, "cache_key")]
    assert len(functions) > 5
    first = settle()
    for function in functions:
        function.hash, function.used_global_vals = None, {}
    callers_first = [function.cache_key for function in reversed(functions)]
    assert len(callers_first) == len(first)
    assert settle() == first


def test_kernels_are_loaded_without_torch():
    program = """
import sys

sys.modules["torch"] = None
sys.path.insert(0, {folder!r})
from process import _enter_packages

for module in {modules}:
    _enter_packages(module)
    __import__(module)
"""
    root = Path(mhsvm.__file__).parent
    files = [file for file in root.glob("ops/**/*_kernels.py") if "cpu" not in file.name]
    modules = [".".join(["mhsvm", *file.relative_to(root).with_suffix("").parts]) for file in files]
    assert len(modules) >= 10
    text = program.format(folder=str(root / "ops" / "compiling"), modules=modules)
    environment = {**os.environ, "PYTHONPATH": str(root.parent)}
    subprocess.run([sys.executable, "-c", text], env=environment, check=True, timeout=60)


class Restless(nn.Module):
    """A module that uses random numbers and changes a buffer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return nn.functional.dropout(self.norm(x), 0.5)


def test_a_dry_pass_leaves_buffers_and_random_numbers_as_they_were(gpu):
    module, state = Restless(), torch.get_rng_state()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    x = torch.rand(2, 4, 8, 8)
    torch.set_rng_state(state)
    assert collect(lambda: module(x), module) == []
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_a_dry_pass_computes_on_zeros_where_kernels_would_have_written(gpu):
    def allocate():
        # memory of a size that was written to and freed just before
        torch.full((1000,), 7, dtype=torch.int64)
        classes = torch.empty(1000, dtype=torch.int64)
        outs.append(nn.functional.one_hot(classes, 3).sum(0).tolist())
        outs.append(torch.empty_like(classes).sum().item())
        outs.append(classes.new_empty((2, 2)).sum().item())

    outs = []
    collect(allocate)
    assert outs == [[1000, 0, 0], 0, 0]


def test_a_dry_pass_that_fails_puts_everything_back(gpu):
    import triton
    from triton.runtime import driver

    def fail():
        module(torch.rand(2, 4, 8, 8))
        raise ValueError("as the step would")

    module, compiler, active = Restless(), triton.compiler.compile, driver.active
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with pytest.raises(ValueError, match="as the step would"):
        collect(fail, module)
    assert triton.compiler.compile is compiler
    assert driver.active is active
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_other_threads_launch_while_one_is_recorded(gpu, monkeypatch):
    import triton
    from triton.runtime import driver

    from mhsvm.ops.compiling.dry_pass import _recorded

    asked = []
    monkeypatch.setattr(triton.compiler, "compile", lambda source, **rest: asked.append(source))
    devices = []

    def launch():
        devices.append(driver.active.get_current_device())
        triton.compiler.compile("source", target=None, options={})

    with _recorded() as variants:
        thread = threading.Thread(target=launch)
        thread.start()
        thread.join()
        assert driver.active.get_current_device() != "absent"
        kept = triton.compiler.compile
    assert devices == ["absent"]
    assert asked == ["source"]
    assert variants == []
    # a kernel keeps the compiler that it called first
    kept("later", target=None, options={})
    assert asked == ["source", "later"]


@pytest.mark.parametrize(
    ("device", "environment", "called"),
    [
        ("cuda", {}, True),
        ("cuda", {"MHSVM_BACKEND": "triton"}, True),
        ("cuda", {"MHSVM_BACKEND": "chunked"}, False),
        ("cuda", {"TRITON_INTERPRET": "1"}, False),
        ("cpu", {}, False),
    ],
)
def test_it_works_where_triton_s_kernels_run(gpu, monkeypatch, device, environment, called):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr("mhsvm.ops.compiling.dry_pass.dry_pass", lambda run, module, device: run() or [])
    compile_ahead(lambda: calls.append(1), nn.Identity(), device=torch.device(device), num_processes=2)
    assert bool(calls) == called
