#!/usr/bin/env bash
# thop 0.1.1 leaves parameters out of its count without a word: those that a module holds itself, such as A_log and D of a
# Mamba block, those of a subclass of torch's layers, and all of a model that is a single layer. Papers of this field report
# parameters by thop, so that networks of state-space blocks look smaller than they are. It counts with a rule for each exact
# class, and asks for rules of children only. Expected: the sum over model.parameters().
# Seen with thop 0.1.1.post2209072238 and torch 2.14.1 on Python 3.11:
#   Linear: 312 of 312
#   subclass of Linear: 0 of 312
#   direct parameters: 0 of 204
#   Linear as the whole model: 0 of 312
# Exits with 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'thop==0.1.1.post2209072238' 'numpy==2.3.5' 'setuptools==80.9.0'
cat > "$folder/count.py" <<'PY'
import torch
from thop import profile
from torch import nn


class Scan(nn.Module):
    def __init__(self):
        super().__init__()
        self.A_log, self.D = nn.Parameter(torch.zeros(12, 16)), nn.Parameter(torch.ones(12))

    def forward(self, x):
        return x * self.D + self.A_log.sum()


class Projection(nn.Linear):
    pass


cases = {
    "Linear": nn.Sequential(nn.Linear(12, 24)),
    "subclass of Linear": nn.Sequential(Projection(12, 24)),
    "direct parameters": nn.Sequential(Scan()),
    "Linear as the whole model": nn.Linear(12, 24),
}
for name, model in cases.items():
    _, counted = profile(model, inputs=(torch.rand(1, 12),), verbose=False)
    print(f"{name}: {int(counted)} of {sum(p.numel() for p in model.parameters())}")
PY
"$folder/venv/bin/python" "$folder/count.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
Linear: 312 of 312
subclass of Linear: 0 of 312
direct parameters: 0 of 204
Linear as the whole model: 0 of 312
EXPECTED
