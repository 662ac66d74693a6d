"""ONNX files of linear classifiers, written without torch's exporter, which takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def write_linear(
    path: Path,
    weights: np.ndarray[Any, Any],
    shape: tuple[int | str, ...] = ("batch", 1, 4, 4),
    *,
    outputs: str = "logits",
    external: bool = False,
) -> Path:
    """Write a classifier whose logits are `flatten(x) @ weights`; `labels` puts their argmax first."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    nodes = [helper.make_node("Flatten", ["pixels"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    shown = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], weights.shape[1]])]
    if outputs == "probabilities":
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
        shown = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [shape[0], weights.shape[1]])]
    if outputs == "labels":
        nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
        shown.append(helper.make_tensor_value_info("label", TensorProto.INT64, [shape[0]]))
    images = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "linear", [images], shown, [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    checker.check_model(model)
    options = {"save_as_external_data": True, "location": "weights.data", "size_threshold": 0} if external else {}
    save(model, str(path), **options)
    return path
