#!/usr/bin/env bash
# OpenVINO 2026.4.1 computes an ONNX Scan wrongly on the CPU, without an error, if its body multiplies in the order
# Mul(slice, state): from the second step on, the slice takes the place of the state. Mul(state, slice), the same product,
# is right, and ONNX Runtime computes both. A linear recurrence, such as the scan of a Mamba network, has exactly this body,
# and exporters write either order. Expected: a product does not depend on the order of its factors.
# Seen with openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0 and numpy 2.4.6 on Python 3.11. The recurrence multiplies 3
# by 2, 3, 4, 5; the wrong products are those of 2 * 3, 3 * 3, 4 * 4, 5 * 5:
#   Mul(state, slice): ONNX Runtime 6 18 72 360, OpenVINO 6 18 72 360
#   Mul(slice, state): ONNX Runtime 6 18 72 360, OpenVINO 6 9 16 25
# Exits with 0 while it is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'openvino==2026.4.1' 'onnx==1.23.2' 'onnxruntime==1.32.0' 'numpy==2.4.6'
cat > "$folder/scan.py" <<'PY'
import io

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

STEPS, SHAPE = 4, (4, 4)


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def scan(*factors):
    nodes = [
        helper.make_node("Mul", factors, ["product"]),
        helper.make_node("Add", ["product", "added"], ["new"]),
        helper.make_node("Identity", ["new"], ["out"]),
    ]
    inputs = [value(name, *SHAPE) for name in ("state", "slice", "added")]
    body = helper.make_graph(nodes, "body", inputs, [value("new", *SHAPE), value("out", *SHAPE)])
    node = helper.make_node("Scan", ["start", "decays", "inputs"], ["last", "states"], body=body, num_scan_inputs=2)
    sequences = [value(name, STEPS, *SHAPE) for name in ("decays", "inputs")]
    outputs = [value("last", *SHAPE), value("states", STEPS, *SHAPE)]
    graph = helper.make_graph([node], "scan", [value("start", *SHAPE), *sequences], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def shown(states):
    return " ".join(f"{x:g}" for x in states[:, 0, 0])


decays = np.arange(2, 2 + STEPS, dtype=np.float32).reshape(STEPS, 1, 1) * np.ones(SHAPE, np.float32)
feed = {"start": np.full(SHAPE, 3, np.float32), "decays": decays, "inputs": np.zeros_like(decays)}
for factors in (("state", "slice"), ("slice", "state")):
    data = scan(*factors)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(
        openvino.convert_model(io.BytesIO(data)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected, found = session.run(["states"], feed)[0], compiled(feed)[1]
    print(f"Mul({', '.join(factors)}): ONNX Runtime {shown(expected)}, OpenVINO {shown(found)}")
PY
"$folder/venv/bin/python" "$folder/scan.py" | tee "$folder/seen"
diff "$folder/seen" - <<'EXPECTED'
Mul(state, slice): ONNX Runtime 6 18 72 360, OpenVINO 6 18 72 360
Mul(slice, state): ONNX Runtime 6 18 72 360, OpenVINO 6 9 16 25
EXPECTED
