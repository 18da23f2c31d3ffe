"""What importing the package loads, and who may import whom inside it."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mhsvm

ROOT = Path(mhsvm.__file__).parent

HEAVY = ("monai", "timm", "sklearn", "matplotlib", "numba", "triton")

# Each part of the package and the parts that it may import besides itself.
MODELS = {"ops", "routes", "layers", "models"}
ENGINE = MODELS | {"config", "losses", "metrics", "data"}
BUILD = ENGINE | {"complexity", "engine", "report"}
MAY_IMPORT = {
    "config": set(),
    "ops": set(),
    "routes": set(),
    "layers": {"ops", "routes"},
    "models": {"ops", "routes", "layers"},
    "losses": {"metrics", "ops"},
    "metrics": set(),
    "data": set(),
    "complexity": ENGINE,
    "engine": ENGINE,
    # A report never runs a model.
    "report": {"config", "routes", "metrics", "data"},
    "build": BUILD,
    "sweep": BUILD | {"build"},
    "bench": BUILD | {"build"},
    "cli": BUILD | {"build", "sweep", "bench"},
    "__main__": {"cli"},
}


def loaded_by(statement: str) -> set[str]:
    program = f"{statement}\nimport json, sys\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def imports_of(path: Path) -> Iterator[str]:
    """Full names of what a file of the package imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import mhsvm") & {*HEAVY, "torch", "numpy"}


def test_building_a_network_and_its_loss_loads_no_optional_package():
    statement = (
        "import mhsvm, mhsvm.losses; mhsvm.create_model('ultralight_vm_unet'); mhsvm.PVMLayer; mhsvm.MultiHeadScan; "
        "mhsvm.losses.create_loss('bce_dice')"
    )
    assert not loaded_by(statement) & {"monai", "timm", "sklearn", "matplotlib", "h5py"}


def test_public_names_can_be_reached():
    for name in mhsvm.__all__:
        assert getattr(mhsvm, name) is not None
        assert name in dir(mhsvm)
    assert mhsvm.list_models() == ("mhs_vm", "ultralight_vm_unet", "vm_unet")
    with pytest.raises(AttributeError, match="module 'mhsvm' has no attribute 'create_modle'"):
        mhsvm.create_modle  # noqa: B018


def test_the_version_is_the_one_installed():
    assert mhsvm.__version__ == importlib.metadata.version("mhsvm")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT what it may import"
    imported = {name.split(".")[1] for name in imports_of(path) if name.startswith("mhsvm.")}
    assert imported - {"__version__"} <= MAY_IMPORT[part] | {part}
