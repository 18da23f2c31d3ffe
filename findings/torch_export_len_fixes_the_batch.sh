#!/usr/bin/env bash
# torch.export (torch 2.14.1, not strict, which is its default) makes len(x) a constant, but not x.shape[0]. With Dim.AUTO
# the batch of the program is then the example's, and the export reports nothing: the program fails when it is first run
# on another batch. A check such as `len(x) != len(y)` suffices. With Dim.DYNAMIC or a named Dim the export fails, and the
# message does not name the line. Python's len() must return an int, so the symbol of the batch is evaluated; in strict
# mode, which reads the bytecode, both spellings are the same. Expected: len(x) is x.shape[0].
# Seen with torch 2.14.1 on Python 3.11, exported with a batch of 2, run on a batch of 5:
#   strict=False len(x): batch 2, fails
#   strict=False x.shape[0]: batch free, runs
#   strict=True len(x): batch free, runs
#   strict=True x.shape[0]: batch free, runs
# Exits with 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'numpy==2.3.5'
cat > "$folder/batch.py" <<'PY'
import torch
from torch import nn
from torch.export import Dim, export


class Len(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), -1)


class Shape(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1)


def runs(program):
    try:
        return program.module()(torch.ones(5, 3, 4)).shape == (5, 12)
    except AssertionError:
        return False


for strict in (False, True):
    for name, module in (("len(x)", Len()), ("x.shape[0]", Shape())):
        program = export(module, (torch.ones(2, 3, 4),), dynamic_shapes=({0: Dim.AUTO},), strict=strict)
        (x,) = (node.meta["val"] for node in program.graph.nodes if node.op == "placeholder")
        batch = str(x.shape[0]) if str(x.shape[0]).isdigit() else "free"
        print(f"strict={strict} {name}: batch {batch}, {'runs' if runs(program) else 'fails'}")
PY
"$folder/venv/bin/python" "$folder/batch.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
strict=False len(x): batch 2, fails
strict=False x.shape[0]: batch free, runs
strict=True len(x): batch free, runs
strict=True x.shape[0]: batch free, runs
EXPECTED
