#!/usr/bin/env bash
# onnxruntime 1.32.0: Where has no CPU kernel for booleans, which the ONNX operator set allows.
#
# A graph of one Where with boolean branches passes onnx's own full check, and onnx's reference evaluator
# runs it. onnxruntime refuses to load it: NotImplemented. The same graph with int32 branches runs.
#
# Seen: checker passes; reference evaluator -> [True, False]; onnxruntime int32 -> runs, bool -> NotImplemented.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def graph(kind):
    inputs = [helper.make_tensor_value_info("c", TensorProto.BOOL, [2])]
    inputs += [helper.make_tensor_value_info(name, kind, [2]) for name in ("x", "y")]
    outputs = [helper.make_tensor_value_info("z", kind, [2])]
    node = helper.make_node("Where", ["c", "x", "y"], ["z"])
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def outcome(model, feed):
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        return session.run(None, feed)[0].tolist()
    except Exception as error:
        return type(error).__name__


condition = np.array([True, False])
whole = {"c": condition, "x": np.array([1, 1], np.int32), "y": np.array([0, 0], np.int32)}
truth = {"c": condition, "x": np.array([True, True]), "y": np.array([False, False])}
reference = ReferenceEvaluator(graph(TensorProto.BOOL)).run(None, truth)[0].tolist()
found = outcome(graph(TensorProto.INT32), whole), outcome(graph(TensorProto.BOOL), truth)
print("onnxruntime", onnxruntime.__version__, "reference", reference, "int32", found[0], "bool", found[1])
assert reference == [True, False] and found == ([1, 0], "NotImplemented"), "changed"
PYTHON
