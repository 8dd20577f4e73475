"""What was found out about a slide before its blocks are scored, kept for the steps that follow."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from pipelines.results import write_json
from pipelines.worker.task import SlideTask
from wsi_her2.scoring.result import ReaderInfo
from wsi_her2.slides.controls import ControlPiece
from wsi_her2.slides.regions import UsedRegions
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.white_point import WhitePoint

_PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What was found out about a slide before its blocks are scored."""

    fingerprint: str
    reader: ReaderInfo
    white_point: WhitePoint
    stain: StainCorrection
    tissue_mm2: float
    regions: UsedRegions | None
    controls: tuple[ControlPiece, ...]
    seconds: float


_PLANS: TypeAdapter[Plan] = TypeAdapter(Plan)


def write_plan(task: SlideTask, plan: Plan) -> None:
    """Keep a slide's plan in its partial folder, where a run that goes on looks for it."""
    write_json(task.partial / _PLAN, _PLANS.dump_python(plan, mode="json"))


def read_plan(task: SlideTask, fingerprint: str) -> Plan | None:
    """The plan of this fingerprint that an earlier step or run left; None where none can be read."""
    try:
        plan = _PLANS.validate_json((task.partial / _PLAN).read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError):
        return None
    return plan if plan.fingerprint == fingerprint else None


def drop_plan(task: SlideTask) -> None:
    """Remove the plan of a slide that is finished."""
    (task.partial / _PLAN).unlink(missing_ok=True)
