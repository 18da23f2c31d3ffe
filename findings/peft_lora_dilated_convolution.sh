#!/usr/bin/env bash
# peft 0.21.2 accepts a convolution with a dilation as a target of LoRA, and the first forward pass fails: lora_A is made with
# the kernel size, stride and padding of the layer and without its dilation, so that its map has another size. Attention gates
# of segmentation networks have such layers. Expected: the dilation is kept, or the layer is refused when it is wrapped.
# Seen with peft 0.21.2 and torch 2.14.1 on Python 3.11, kernel 7 with padding 3 times the dilation on 32 x 32:
#   dilation 1: (1, 4, 32, 32)
#   dilation 3: wrapped, then RuntimeError: The size of tensor a (32) must match the size of tensor b (44)
# Exits with 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'torch==2.14.1' 'peft==0.21.2' 'transformers==5.24.0' 'accelerate==1.15.0'
cat > "$folder/wrap.py" <<'PY'
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

for dilation in (1, 3):
    model = nn.Sequential(nn.Conv2d(2, 4, 7, padding=3 * dilation, dilation=dilation))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), model)
    try:
        print(f"dilation {dilation}: {tuple(model(torch.rand(1, 2, 32, 32)).shape)}")
    except RuntimeError as error:
        print(f"dilation {dilation}: wrapped, then RuntimeError: {str(error).partition(' at ')[0]}")
PY
"$folder/venv/bin/python" "$folder/wrap.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
dilation 1: (1, 4, 32, 32)
dilation 3: wrapped, then RuntimeError: The size of tensor a (32) must match the size of tensor b (44)
EXPECTED
