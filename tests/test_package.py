"""The files that an installed package contains."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("mhsvm", "benchmarks", "scripts", "examples", "tests")


def test_the_wheel_has_the_package_with_its_data_and_nothing_else(tmp_path):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.splitlines() if "/" not in name or name.startswith(FOLDERS)}
    for name in tracked:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    (path,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        packaged = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packaged == {name for name in tracked if name.startswith("mhsvm/")}
    expected = {"py.typed", "report/templates/report.html", "models/weights/index.csv", "native/ultralight.c"}
    assert {f"mhsvm/{name}" for name in expected} <= packaged
