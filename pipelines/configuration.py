"""The configuration of a run: defaults, a YAML file or a preset by name, options of the command line on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsi_her2.bounded_file import read_bounded
from wsi_her2.cells.field import CellCutoffs
from wsi_her2.errors import ConfigurationError
from wsi_her2.messages import shortened, wrong_fields
from wsi_her2.scoring.gate import GateLimits
from wsi_her2.scoring.rule import Thresholds
from wsi_her2.slides.controls import ControlLimits
from wsi_her2.slides.regions import RegionNames
from wsi_her2.slides.stain import StainSettings
from wsi_her2.slides.tissue import TissueSettings

_MAX_CONFIG_BYTES = 256_000
"""Of a YAML file; the longest preset has 6 kB."""

_MAX_NODES, _MAX_DEPTH, _MAX_ALIASES = 20_000, 20, 20
"""Of YAML: values, values within values, and places that repeat another one. A few hundred bytes of aliases of
aliases stand for gigabytes, and merging them takes as long."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PatchSettings(_Section):
    """Which patches are scored and how they are grouped; see `wsi_her2.slides.grid`."""

    min_tissue: float = Field(0.5, gt=0, le=1)
    block_edge: int | None = Field(None, ge=1, le=64)


class SamplingSettings(_Section):
    """Whether all patches are scored, or only as many as the call needs; see `pipelines.worker.sampling`.

    With `mode` 'adaptive', scoring stops when the call of all patches would be the same with this `confidence`.
    """

    mode: Literal["full", "adaptive"] = "full"
    confidence: float = Field(0.99, gt=0.5, lt=1)


class ConfidenceSettings(_Section):
    """Side of the tissue blocks that are resampled (um), and the temperature of what comes out."""

    block_um: float = Field(500.0, gt=0)
    temperature: float = Field(1.0, ge=0.1, le=20)


class ScaleDeviation(_Section):
    """How much DAB differs from slide to slide: standard deviation of its natural logarithm."""

    uncalibrated: float = Field(0.3, ge=0, le=2)
    calibrated: float = Field(0.2, ge=0, le=2)


class CellRunSettings(_Section):
    """Where cells are counted, which of them are tumour cells, and from what staining on they are of which class.

    `sample_mm2` is how much of the tumour is looked at with `mode` 'sample'. Cells count that are of the tumour
    with a probability of `min_tumour_probability` or more. The odds of staining at all, completely and intensely
    are taken to be wrong by `class_deviation`, natural logarithm.
    """

    mode: Literal["sample", "all", "none"] = "sample"
    sample_mm2: float = Field(0.5, gt=0)
    min_cells: int = Field(100, ge=1)
    min_tumour_probability: float = Field(0.15, ge=0, le=1)
    cutoffs: CellCutoffs = CellCutoffs()
    scale_deviation: ScaleDeviation = ScaleDeviation()
    class_deviation: float = Field(0.3, ge=0, le=3)


class ReviewSettings(_Section):
    """Percentage points by which two calls may differ at a border of the rule without being flagged."""

    margin_points: float = Field(10.0, ge=0)


class RegionSettings(_Section):
    """Annotated regions: GeoJSON files or folders of them, and what their names mean."""

    files: tuple[Path, ...] = ()
    include: tuple[str, ...] = RegionNames().include
    exclude: tuple[str, ...] = RegionNames().exclude

    @property
    def names(self) -> RegionNames:
        """What the names mean."""
        return RegionNames(self.include, self.exclude)


class ControlSettings(_Section):
    """Control tissue on the slide: whether pieces that look like it are only reported or left out."""

    action: Literal["report", "leave_out"] = "report"
    limits: ControlLimits = ControlLimits()


class ComputeSettings(_Section):
    """How the work is spread: never part of the fingerprint, because the outputs do not depend on it."""

    workers: int | None = Field(None, ge=1)
    memory_limit: str | None = Field(None, pattern=r"^\d+(\.\d+)? ?[KMGT]i?B$")
    scheduler: str | None = None
    processes: bool = True
    max_slides_open: int | None = Field(None, ge=1)
    max_blocks_in_flight: int | None = Field(None, ge=1)
    attempts: int = Field(4, ge=1, le=100)
    retry_wait_s: float = Field(1.0, ge=0, le=3600)
    step_limit_s: float = Field(600.0, gt=0)
    cluster_wait_s: float = Field(300.0, ge=0)
    settle_s: float = Field(10.0, ge=0)


class RunConfig(_Section):
    """Everything that decides what a run computes. `configs/default.yaml` describes each setting."""

    model: str | None = None
    runtime: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    precision: Literal["fp32", "int8"] = "fp32"
    tta: Literal["none", "flips", "turns"] = "none"
    modality: Literal["ihc", "he"] = "ihc"
    mpp: float | None = Field(None, gt=0)
    backend: Literal["auto", "tiled-jpeg", "openslide", "tiffslide"] = "auto"
    store_patches: bool = False
    percentages: Literal["counts", "shares", "corrected", "cells"] | None = None
    lab: str | None = None
    tissue: TissueSettings = TissueSettings()
    regions: RegionSettings = RegionSettings()
    controls: ControlSettings = ControlSettings()
    patches: PatchSettings = PatchSettings()
    sampling: SamplingSettings = SamplingSettings()
    stain: StainSettings = StainSettings()
    thresholds: Thresholds = Thresholds()
    gate: GateLimits = GateLimits()
    cells: CellRunSettings = CellRunSettings()
    review: ReviewSettings = ReviewSettings()
    confidence: ConfidenceSettings = ConfidenceSettings()
    compute: ComputeSettings = ComputeSettings()


def load_config(name_or_path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Resolve a configuration.

    Parameters
    ----------
    name_or_path : str or pathlib.Path, optional
        Name of a preset, or a YAML file.
    overrides : mapping, optional
        Settings that win over the file; `None` values are passed over. Nested settings as 'compute.workers'.

    Raises
    ------
    ConfigurationError
        There is no such preset or file, or a setting is wrong.
    """
    described: dict[str, Any] = {}
    source = "the options"
    if name_or_path is not None:
        source, described = read_mapping(name_or_path)
    for key, value in (overrides or {}).items():
        if value is None:
            continue
        *sections, setting = key.split(".")
        target = described
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigurationError(f"{source}: {section} holds settings, not {type(target).__name__}")
        target[setting] = value
    try:
        return RunConfig.model_validate(described)
    except ValidationError as error:
        raise ConfigurationError(
            f"{source}: {wrong_fields(error)}. configs/default.yaml lists every setting."
        ) from error


def read_mapping(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    """A preset or YAML file as it stands: where it is, and its settings.

    Raises
    ------
    ConfigurationError
        There is no such preset or file, or it is not a mapping in YAML.
    """
    path = _find(name_or_path)
    return str(path), _read(path)


def presets() -> dict[str, Path]:
    """Bundled configurations by name."""
    here = Path(__file__).resolve().parent
    for folder in (here / "configs", here.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_file():
        return path
    named = presets()
    if str(name_or_path) in named:
        return named[str(name_or_path)]
    raise ConfigurationError(
        f"{name_or_path}: neither a file nor the name of a preset ({', '.join(named) or 'none found'})"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_bounded(path, _MAX_CONFIG_BYTES).decode("utf-8-sig")
        _refuse_bomb(text, path)
        described = yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read as a configuration ({error.strerror or error})"
        ) from error
    # Numbers and dates that YAML's own rules let through fail as they are made.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, LookupError, RecursionError) as error:
        raise ConfigurationError(f"{path}: not YAML: {shortened(error)}") from error
    if described is None:
        return {}
    if not isinstance(described, dict):
        raise ConfigurationError(
            f"{path}: a configuration is a mapping of settings, not {type(described).__name__}"
        )
    if not all(isinstance(key, str) for key in described):
        raise ConfigurationError(f"{path}: the names of settings are text")
    return described


def _refuse_bomb(text: str, path: Path) -> None:
    """Refuse YAML that would grow as it is read; what is only looked at here is neither built nor merged."""
    depth = nodes = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        nodes += isinstance(event, yaml.NodeEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if nodes > _MAX_NODES or depth > _MAX_DEPTH or aliases > _MAX_ALIASES:
            raise ConfigurationError(
                f"{path}: not a configuration: more than {_MAX_NODES:,} values, {_MAX_DEPTH} within each "
                f"other, or {_MAX_ALIASES} aliases"
            )
