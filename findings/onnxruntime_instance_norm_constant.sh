#!/usr/bin/env bash
# ONNX Runtime 1.32.0 does not normalize a constant map to 0. InstanceNormalization on the CPU adds all cells to one float32
# sum, the rounded mean leaves a rest in each cell, and the rest is divided by sqrt(eps), 1/316: 0.008 for a map of 256 x 256,
# 0.12 for 1024 x 1024, with values of 0.3. Black borders, masked volumes and empty patches give such maps to networks with
# InstanceNorm (nnU-Net, MONAI), or with GroupNorm, which exporters write by this operator. LayerNormalization of the same
# cells, numpy and torch return 0. No warning. Expected: 0, as (x - mean) / sqrt(variance + eps) is.
# Seen with onnxruntime 1.32.0 and onnx 1.23.2 on Python 3.11, on an AMD EPYC (Zen 4); other processors round otherwise:
#   256 x 256: InstanceNormalization 0.0079, LayerNormalization 0
#   1024 x 1024: InstanceNormalization 0.12, LayerNormalization 0
# Exits with 0 while it is more than 0.001 at 1024 x 1024.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'onnxruntime==1.32.0' 'onnx==1.23.2' 'numpy==2.3.5'
cat > "$folder/constant.py" <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper


def greatest(kind, x, weights, **attributes):
    names = list(weights)
    node = helper.make_node(kind, ["x", *names], ["y"], **attributes)
    x_info, y_info = (helper.make_tensor_value_info(name, TensorProto.FLOAT, list(x.shape)) for name in "xy")
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "norm", [x_info], [y_info], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(np.abs(session.run(None, {"x": x})[0]).max())


for side in (256, 1024):
    x = np.full((1, 1, side, side), 0.3, np.float32)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    instance = greatest("InstanceNormalization", x, {"scale": one, "bias": zero}, epsilon=1e-5)
    layer = greatest("LayerNormalization", x, {"scale": np.ones(x.shape[1:], np.float32)}, axis=1, epsilon=1e-5)
    print(f"{side} x {side}: InstanceNormalization {instance:.2g}, LayerNormalization {layer:.2g}")
assert instance > 0.001
assert layer == 0
PY
"$folder/venv/bin/python" "$folder/constant.py"
