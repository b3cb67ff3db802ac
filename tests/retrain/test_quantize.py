"""int8: the scheme that the CPU computes right, and preprocessing left alone."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from retrain.compress.quantize import (
    QuantizeError,
    choose_scheme,
    cpu_flags,
    quantize,
    quantized_beside_products,
)
from retrain.pipeline.export import open_session
from tests.retrain.pipeline_rows import RECIPE
from tests.retrain.test_export import exported, trained_on

WIDE = RECIPE.replace("hidden: [16]", "hidden: [256, 128]")


@pytest.mark.parametrize(
    ("flags", "scheme", "reduce_range"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "u8s8", False),
        ({"avx2", "avx_vnni"}, "u8s8", False),
        ({"avx2", "fma"}, "u8s8_reduce_range", True),
        ({"avx2", "avx512f"}, "u8s8_reduce_range", True),
        ({"sse4_2"}, "u8u8", False),
        (set(), "u8u8", False),
    ],
)
def test_the_scheme_follows_the_cpu(flags: set[str], scheme: str, reduce_range: bool) -> None:
    got = choose_scheme(frozenset(flags))
    assert (got.name, got.reduce_range) == (scheme, reduce_range)
    assert got.activation == "uint8"
    assert got.weight == ("uint8" if scheme == "u8u8" else "int8")


def test_flags_are_read_from_cpuinfo(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: x\nflags\t\t: fpu avx2 avx_vnni\n\nflags: b\n"
    )
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx_vnni"}
    assert cpu_flags(tmp_path / "absent") == frozenset()


@pytest.mark.parametrize("flags", [frozenset({"avx_vnni"}), frozenset({"avx2"}), frozenset[str]()])
def test_the_int8_twin_is_smaller_and_says_nearly_the_same(
    tmp_path: Path, flags: frozenset[str]
) -> None:
    _, trained, rows = trained_on(tmp_path, WIDE)
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    exported(trained, rows, source)
    step = quantize(source, target, rows, scheme=choose_scheme(flags), rows_max=128)
    assert step["calibration_rows"] == 128
    assert step["products"] == 2
    assert step["reduce_range"] is (flags == {"avx2"})
    assert target.stat().st_size < 0.5 * source.stat().st_size
    before = open_session(source).run(None, {"x": rows})[0]
    after = open_session(target).run(None, {"x": rows})[0]
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.97
    assert quantized_beside_products(target) == ()


def test_only_products_are_quantised_and_the_last_one_is_kept(tmp_path: Path) -> None:
    _, trained, rows = trained_on(tmp_path, WIDE)
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    exported(trained, rows, source)
    quantize(source, target, rows, scheme=choose_scheme(frozenset({"avx2"})))
    graph = onnx.load(target).graph
    makers = {name: node for node in graph.node for name in node.output}
    kept = [
        node for node in graph.node if node.op_type == "Gemm" and makers.get(node.input[1]) is None
    ]
    assert len(kept) == 1
    last = next(node for node in graph.node if node.op_type == "Softmax")
    assert makers[last.input[0]].name == kept[0].name
    # Scores have more than the 256 values that eight bits would leave of them.
    wide = np.repeat(rows, 3, axis=0)
    wide[:, 1] *= np.random.default_rng(0).uniform(0.8, 1.2, len(wide)).astype(np.float32)
    assert len(np.unique(open_session(target).run(None, {"x": wide})[0][:, 1])) > 256


def test_a_graph_without_products_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 2])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(QuantizeError, match="nothing to quantise"):
        quantize(
            tmp_path / "m.onnx",
            tmp_path / "q.onnx",
            np.zeros((4, 2), np.float32),
            scheme=choose_scheme(frozenset()),
        )
