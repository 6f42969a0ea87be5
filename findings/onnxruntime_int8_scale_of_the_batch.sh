#!/usr/bin/env bash
# Package:  onnxruntime 1.32.0 with onnx 1.23.2
# Expected: a model quantized by quantize_dynamic answers a row of a batch as it answers the row alone; "per_channel" and
#           "dynamic" suggest a scale for each row.
# Seen:     the activations of a whole batch, padding included, have one scale. One row with large values takes the precision
#           of all others: with a row a hundred times as large beside it, a row of logits loses its order.
# Matters:  the answer to a question changes with the other questions of its batch, and with what is at padding.
# Remedy:   run quantized models row by row, or quantize the weights alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6 2>pip.log || { cat pip.log; exit 2; }
venv/bin/python - <<'PY'
import logging
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)
random = np.random.default_rng(0)
weight = random.normal(size=(64, 10)).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "weight"], ["logits"], "product")],
    "classifier",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
    [numpy_helper.from_array(weight, "weight")],
)
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "model.onnx")
quantize_dynamic("model.onnx", "int8.onnx", per_channel=True, weight_type=QuantType.QInt8)
session = onnxruntime.InferenceSession("int8.onnx")
row = random.normal(size=(1, 64)).astype(np.float32)
exact = (row @ weight)[0]
others = {"alone": [], "beside an equal row": [row], "beside a large row": [100 * row]}
errors = {}
for name, rows in others.items():
    logits = session.run(None, {"x": np.concatenate([row, *rows])})[0][0]
    errors[name] = np.abs(logits - exact).max() / exact.std()
    print(f"{name}: best answer {logits.argmax()}, largest error {errors[name]:.3f} standard deviations of the logits")
sys.exit(not (errors["alone"] == errors["beside an equal row"] < 0.05 and errors["beside a large row"] > 0.5))
PY
