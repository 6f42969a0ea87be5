from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

from coattn.export.image_side import split_image_side  # noqa: E402
from coattn.runtime.inputs import image_inputs, mask, padded  # noqa: E402

SHAPES = {
    "question": ("batch", "tokens", 2),
    "regions": ("batch", "regions", 2),
    "doubled": ("batch", "regions", 2),
    "turned": ("batch", 2, "regions"),
    "mean": ("batch", 2),
    "scores": ("batch", "tokens", "regions"),
}


def write(path: Path, nodes: list[tuple[str, list[str], str]], output: str) -> None:
    """Write a graph of operators with one output each."""
    values = {name: onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in SHAPES.items()}
    attributes = {"Transpose": {"perm": [0, 2, 1]}, "ReduceMean": {"keepdims": 0}}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, reads, [makes], **attributes.get(kind, {})) for kind, reads, makes in nodes],
        "graph",
        [values["question"], values["regions"]],
        [values[output]],
        [onnx.numpy_helper.from_array(np.array([1]), "axis")],
        value_info=[values[name] for name in ("doubled", "turned", "mean") if name != output],
    )
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def names(path: Path) -> tuple[list[str], list[str], list[str]]:
    """The inputs, operators and outputs of a graph."""
    graph = onnx.load(path).graph
    return [v.name for v in graph.input], [node.op_type for node in graph.node], [v.name for v in graph.output]


def run(path: Path, **values: np.ndarray) -> np.ndarray:
    return runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"]).run(None, values)[0]


def test_what_depends_on_the_image_alone_moves_as_far_as_it_can_be_padded(tmp_path: Path) -> None:
    nodes = [
        ("Add", ["regions", "regions"], "doubled"),
        ("Transpose", ["doubled"], "turned"),
        ("MatMul", ["question", "turned"], "scores"),
    ]
    whole, model, image = (tmp_path / f"{name}.onnx" for name in ("whole", "model", "image"))
    for path in (whole, model):
        write(path, nodes, "scores")
    split_image_side(model, image)
    assert names(image) == (["regions"], ["Add"], ["doubled"])
    assert names(model) == (["question", "doubled"], ["Transpose", "MatMul"], ["scores"])
    random = np.random.default_rng(0)
    question, regions = (random.normal(size=(1, size, 2)).astype(np.float32) for size in (3, 4))
    expected = run(whole, question=question, regions=regions)
    np.testing.assert_array_equal(run(model, question=question, doubled=run(image, regions=regions)), expected)


def test_a_vector_of_an_image_is_passed_too(tmp_path: Path) -> None:
    nodes = [("ReduceMean", ["regions", "axis"], "mean"), ("Mul", ["question", "mean"], "scores")]
    write(tmp_path / "model.onnx", nodes, "scores")
    split_image_side(tmp_path / "model.onnx", tmp_path / "image.onnx")
    assert names(tmp_path / "image.onnx") == (["regions"], ["ReduceMean"], ["mean"])


@pytest.mark.parametrize(
    ("nodes", "output"),
    [
        ([("Relu", ["question"], "scores")], "scores"),
        ([("Transpose", ["regions"], "turned"), ("MatMul", ["question", "turned"], "scores")], "scores"),
        ([("Add", ["regions", "regions"], "doubled")], "doubled"),
    ],
)
def test_a_graph_without_such_a_part_stays_as_it_is(
    nodes: list[tuple[str, list[str], str]], output: str, tmp_path: Path
) -> None:
    write(tmp_path / "model.onnx", nodes, output)
    before = (tmp_path / "model.onnx").read_bytes()
    split_image_side(tmp_path / "model.onnx", tmp_path / "image.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == before
    assert not (tmp_path / "image.onnx").exists()


def test_images_are_padded_to_one_batch() -> None:
    rows = [np.ones((2, 3), np.float32), np.ones((0, 3), np.float32), np.ones((1, 3), np.float32)]
    assert padded(rows).sum((1, 2)).tolist() == [6, 0, 3]
    assert mask([2, 0, 1]).tolist() == [[True, True], [False, False], [True, False]]
    assert (padded(rows[1:2]).shape, mask([0]).tolist()) == ((1, 1, 3), [[False]])
    assert np.shares_memory(padded(rows[:1]), rows[0])
    values = image_inputs(rows[1], np.zeros((0, 4), np.float32), (80, 60), None)
    assert values["image_sizes"].tolist() == [80, 60]
