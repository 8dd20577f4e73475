"""A graph runs only if it consists of what these networks consist of; and no runtime reports to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.crafted_models import GRAPHS
from wsi_her2.errors import ClassifierError
from wsi_her2.models.bundle import ONNX_FILES
from wsi_her2.models.loading import bundled_bundles
from wsi_her2.models.onnx_operators import refuse_unknown_operators

REFUSED = {
    "external": "another file",
    "huge_constant": "'ConstantOfShape'",
    "fourty_gigabytes": "'ConstantOfShape'",
    "endless_loop": "a graph of its own|'Loop'",
    "large_kernel": "pixels on a side",
    "custom_domain": "'Run' of 'evil'",
}


@pytest.mark.parametrize("name", bundled_bundles())
def test_graphs_that_ship_are_such_graphs(name: str) -> None:
    for file in ONNX_FILES.values():
        refuse_unknown_operators((bundled_bundles()[name] / file).read_bytes())


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_can_do_harm_is_refused_before_a_runtime_sees_it(name: str) -> None:
    onnx = pytest.importorskip("onnx")
    path = bundled_bundles()["pruneff4-phantoms"] / ONNX_FILES["fp32"]
    model = onnx.load_from_string(path.read_bytes())
    GRAPHS[name](model)
    with pytest.raises(ClassifierError, match=REFUSED[name]):
        refuse_unknown_operators(model.SerializeToString())


@pytest.mark.parametrize("content", [b"\xff" * 20, b"\x3a\xff\xff\x03ab", b"\x0b", b"\x08"])
def test_bytes_that_are_no_graph_are_a_classifier_error(content: bytes) -> None:
    with pytest.raises(ClassifierError, match="no ONNX file"):
        refuse_unknown_operators(content)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_runtime_leaves_nothing_in_the_users_home(runtime: str, tmp_path: Path) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    code = (
        f"from wsi_her2.models.loading import load_classifier; load_classifier('pruneff4-phantoms', '{runtime}')"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    subprocess.run([sys.executable, "-c", code], env={**kept, "HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []
