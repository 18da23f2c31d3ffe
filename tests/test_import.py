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

# Each room of the package and the rooms that it may import besides itself.
BASE = {
    "version",
    "registry",
    "plugins",
    "files",
    "ownership",
    "text_file",
    "result_folder",
    "folder_lock",
    "cgroup",
    "openmp",
    "system",
    "threads",
    "table",
    "nearest",
    "errors",
}
NETWORKS = BASE | {"native", "ops", "routes", "layers", "models"}
DATA = BASE | {"native", "ops", "store", "data"}
INFERENCE = DATA | NETWORKS | {"metrics", "prepare", "runtime", "inference"}
EVALUATION = INFERENCE | {"leakage", "evaluation"}
TRAINING = EVALUATION | {"losses", "training"}
EXPORT = INFERENCE | {"export"}
ASSEMBLE = TRAINING | EXPORT | {"config", "defaults", "complexity", "synthetic", "assemble"}
MAY_IMPORT = {
    "version": set(),
    "nearest": set(),
    "registry": {"nearest"},
    "plugins": set(),
    "errors": set(),
    "yaml_file": {"text_file"},
    "bounds": set(),
    "setting_types": set(),
    "defaults": set(),
    "config": {"nearest", "errors", "yaml_file", "bounds", "setting_types", "defaults"},
    "files": set(),
    "ownership": set(),
    "text_file": {"files"},
    "result_folder": {"files"},
    "folder_lock": {"files"},
    "cgroup": {"text_file"},
    "openmp": {"cgroup"},
    "system": {"cgroup", "version", "text_file"},
    "threads": {"system"},
    "table": set(),
    "native": BASE,
    "ops": BASE | {"native"},
    "routes": BASE,
    "layers": BASE | {"ops", "routes"},
    "models": NETWORKS,
    "complexity": NETWORKS,
    "metrics": BASE,
    "losses": BASE | {"metrics", "ops"},
    "store": BASE,
    "synthetic": BASE | {"store"},
    "data": DATA,
    "prepare": BASE | {"store"},
    "download": BASE,
    "leakage": DATA | {"metrics"},
    "runtime": BASE | {"ops"},
    "inference": INFERENCE,
    "export": EXPORT,
    "evaluation": EVALUATION,
    "training": TRAINING,
    # A report reads what others have written, and never runs a model.
    "report": BASE | {"config", "routes", "metrics", "store", "prepare", "inference", "evaluation"},
    # The only room that reads a config.
    "assemble": ASSEMBLE,
    "sweep": ASSEMBLE,
    "cli": ASSEMBLE | {"api", "download", "sweep", "report", "synthetic"},
    "finished_run": ASSEMBLE,
    "api": ASSEMBLE | {"finished_run"},
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


def test_building_a_network_does_not_load_the_compiler():
    program = "import sys, mhsvm; mhsvm.create_model('ultralight_vm_unet'); sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_public_names_can_be_reached():
    for name in mhsvm.__all__:
        assert getattr(mhsvm, name) is not None
        assert name in dir(mhsvm)
    assert "mhs_vm" in mhsvm.list_models()
    with pytest.raises(AttributeError, match="module 'mhsvm' has no attribute 'create_modle'"):
        mhsvm.create_modle  # noqa: B018


def test_the_version_is_the_one_installed():
    assert mhsvm.__version__ == importlib.metadata.version("mhsvm")


def part_of(module: str) -> str:
    return module.split(".")[1]


def modules() -> dict[str, Path]:
    """Full name -> file, of every module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("mhsvm", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported_modules(module: str) -> set[str]:
    """Modules of the package that a module imports, at its top or inside a function."""
    found = set()
    for name in imports_of(MODULES[module]):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found - {module}


@pytest.mark.parametrize("module", [name for name in MODULES if name != "mhsvm"])
def test_a_room_imports_only_rooms_below_it(module):
    part = part_of(module)
    assert part in MAY_IMPORT, f"{part} is new: say in MAY_IMPORT what it may import"
    imported = {part_of(name) for name in imported_modules(module) - {"mhsvm"}}
    assert imported <= MAY_IMPORT[part] | {part}


def test_no_file_imports_itself_by_way_of_others():
    imports = {module: imported_modules(module) for module in MODULES}
    while True:
        done = [module for module, needed in imports.items() if not needed]
        if not done:
            break
        imports = {module: needed - set(done) for module, needed in imports.items() if module not in done}
    assert not imports, f"these import each other in a circle, or import such: {', '.join(sorted(imports))}"


def test_rooms_form_no_circle():
    rooms = {room: set(others) - {room} for room, others in MAY_IMPORT.items()}
    while done := [room for room, others in rooms.items() if not others]:
        rooms = {room: others - set(done) for room, others in rooms.items() if room not in done}
    # BASE is one room: its files are held by the test of files
    assert not rooms
