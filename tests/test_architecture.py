"""The library stands on its own, and nothing is loaded before it is used.

What may import what stands in pyproject.toml under `tool.importlinter`, and `make check` holds it. What is held
here shows only once code runs.
"""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import wsi_her2
from wsi_her2 import errors
from wsi_her2.models.runtimes.choice import accelerator_may_be_there

ROOT = Path(wsi_her2.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(ROOT)], "wsi_her2."))
IN_TORCH = {
    "wsi_her2.learning.cell_grading",
    "wsi_her2.learning.network_training",
    "wsi_her2.learning.patch_augmentation",
    "wsi_her2.models.networks.ather2",
    "wsi_her2.models.networks.deployed",
    "wsi_her2.models.networks.pruneff",
}
"""Modules that are torch through and through; nothing imports them before a network is trained or run in torch."""
FOREIGN = {"dask", "distributed", "pipelines", "typer"}


def loaded_after(code):
    """Top-level names of the modules that a fresh interpreter has loaded after running the code."""
    code = f"{code}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    return set(done.stdout.split())


def test_importing_every_module_but_those_in_torch_loads_no_dask_no_pipelines_no_typer_and_no_torch():
    assert set(IN_TORCH) <= set(MODULES)
    loaded = loaded_after("import " + ", ".join(name for name in MODULES if name not in IN_TORCH))
    assert "numpy" in loaded
    assert loaded.isdisjoint(
        FOREIGN | {"torch", "timm", "lightning", "onnxruntime", "openvino", "h5py", "matplotlib"}
    )


@pytest.mark.skipif(accelerator_may_be_there(), reason="torch is worth importing beside an accelerator")
def test_choosing_a_runtime_on_a_cpu_does_not_import_torch():
    loaded = loaded_after(
        "from wsi_her2.models.loading import load_classifier; load_classifier('pruneff4-phantoms').predict"
    )
    assert "onnxruntime" in loaded
    assert "torch" not in loaded


def test_planning_a_run_does_not_import_what_only_cells_need():
    assert "scipy" not in loaded_after("import pipelines.worker.steps")


def test_importing_the_package_loads_neither_numpy_nor_torch():
    loaded = loaded_after("import wsi_her2")
    assert "wsi_her2" in loaded
    assert loaded.isdisjoint({"numpy", "cv2", "zarr", "openslide", "torch"} | FOREIGN)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "error",
    [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__],
    ids=lambda cls: cls.__name__,
)
def test_every_error_is_a_her2error_and_the_builtin_that_it_is(error):
    assert issubclass(error, errors.HER2Error)
    if error not in (errors.HER2Error, errors.SlideError):
        builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
        assert set(builtins) - {error, Exception, BaseException, object}


def test_no_other_module_defines_errors_outside_the_tree():
    for name in MODULES:
        for _, cls in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if issubclass(cls, Exception) and cls.__module__.startswith("wsi_her2"):
                assert issubclass(cls, errors.HER2Error), f"{cls.__module__}.{cls.__name__}"
