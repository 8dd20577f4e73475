"""`score` from inputs to summary: find the slides, score them on a cluster, keep the record."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.cluster import connect
from pipelines.configuration import RunConfig
from pipelines.fingerprint import software_version
from pipelines.lab_profiles import find_profile
from pipelines.ledger import Ledger, command_line, describe_run, earlier_model
from pipelines.progress import RunProgress
from pipelines.results import partial_folder, publish, write_result
from pipelines.schedule import SlideDone, SlideFailed, score_slides
from pipelines.sources import PARTIAL_FOLDER, check_output, find_regions, find_slides, known_slides, name_slides
from pipelines.steps import SlideTask, model_info
from wsi_her2.errors import ClassifierError, ConfigurationError, HER2Error, MissingExtra
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.loading import MEMBRANE, ClassifierChoice
from wsi_her2.reports.slide_report import write_slide_report
from wsi_her2.scoring.call import tumour_classes_of
from wsi_her2.scoring.result import ModelInfo, SlideResult
from wsi_her2.slides.location import locate, without_credentials


@dataclass(frozen=True)
class RunSummary:
    """Results of the slides that were asked for, in their order, and where the record lies."""

    output: Path
    results: tuple[SlideResult, ...]

    @property
    def all_scored(self) -> bool:
        """Whether every slide has a call."""
        return all(result.status == "scored" for result in self.results)


def score(
    inputs: Sequence[str | Path],
    output: Path,
    config: RunConfig,
    *,
    fresh: bool = False,
    fail_fast: bool = False,
    console: Console | None = None,
) -> RunSummary:
    """Score slides and write everything that `docs/outputs.md` describes.

    Parameters
    ----------
    inputs : sequence of str or pathlib.Path
        Slide files and folders of slides; as text also their URLs.
    output : pathlib.Path
        Made if needed. What it holds of an equal run is reused.
    config : RunConfig
    fresh : bool
        Score again what an earlier run has scored.
    fail_fast : bool
        Stop at the first slide that fails.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Raises
    ------
    ConfigurationError, ClassifierError, OutputError, SlideError, MissingExtra
        Nothing was scored, and the message says what to do.
    KeyboardInterrupt
        Finished slides and finished blocks are kept.
    """
    console = console or Console(stderr=True)
    given = [locate(one) for one in inputs]
    paths = find_slides(given)
    check_output(output, given)
    output = output.resolve()
    choice, classifier = resolve_classifier(config, earlier_model(output))
    sources = name_slides(paths, known_slides(output))
    regions = find_regions(config.regions.files, paths)
    lab, lab_sha256 = find_profile(config, classifier)
    tasks = [
        SlideTask(
            source.slide_id,
            source.path,
            output,
            config,
            choice,
            classifier.sha256,
            fresh,
            regions.get(source.path),
            lab,
            lab_sha256,
        )
        for source in sources
    ]
    info = model_info(classifier)
    by_slide: dict[str, SlideResult] = {}
    with connect(config.compute) as client:
        workers = sum(client.nthreads().values())
        run = describe_run(
            [without_credentials(word) for word in command_line()],
            config.model_dump(mode="json"),
            asdict(info),
            workers,
        )
        run["scheduler"] = config.compute.scheduler or "local"
        events = score_slides(
            client,
            tasks,
            max_slides_open=config.compute.max_slides_open,
            max_blocks_in_flight=config.compute.max_blocks_in_flight,
        )
        with Ledger(output, run) as ledger, RunProgress(len(tasks), console) as progress, closing(events):
            for event in events:
                result = None
                if isinstance(event, SlideDone):
                    result = event.result
                elif isinstance(event, SlideFailed):
                    result = record_failure(event.task, event.error, config, info)
                if result is not None:
                    by_slide[result.slide_id] = result
                    ledger.add(result)
                progress.show(event, result)
                if fail_fast and isinstance(event, SlideFailed):
                    break
    with suppress(OSError):
        (output / PARTIAL_FOLDER).rmdir()
    return RunSummary(output, tuple(by_slide[task.slide_id] for task in tasks if task.slide_id in by_slide))


def resolve_classifier(
    config: RunConfig, earlier: dict[str, Any] | None = None
) -> tuple[ClassifierChoice, PatchClassifier]:
    """Load the classifier of a configuration and see that it fits the modality and can be called.

    Parameters
    ----------
    config : RunConfig
    earlier : dict, optional
        The model of an earlier run into the same folder. A runtime that was chosen then is taken again, so that
        what is finished can be reused although the machine may be busier now.

    Returns
    -------
    tuple of ClassifierChoice and PatchClassifier
        The choice names a runtime, never 'auto', and an absolute path.

    Raises
    ------
    ConfigurationError, ClassifierError
    """
    if config.model is None and config.modality == "he":
        raise ConfigurationError(
            "no classifier for H&E is bundled: HER2 is not visible on H&E without a model trained on your own "
            "slides. Pass one with --model."
        )
    name = config.model or MEMBRANE
    if name != MEMBRANE and Path(name).exists():
        name = str(Path(name).resolve())
    choice = ClassifierChoice(name, config.runtime, config.precision, config.tta)
    classifier = _as_before(choice, earlier) or choice.load()
    tumour_classes_of(classifier.classes)
    if classifier.modality != config.modality:
        raise ConfigurationError(
            f"the classifier {classifier.name!r} is for {classifier.modality}, but the run is for "
            f"{config.modality}: pass --modality {classifier.modality}, or another --model."
        )
    return replace(choice, runtime=classifier.runtime), classifier


def _as_before(choice: ClassifierChoice, earlier: dict[str, Any] | None) -> PatchClassifier | None:
    """The classifier in the runtime of an earlier run; None where nothing was chosen or it does not run here."""
    if choice.runtime != "auto" or not earlier or earlier.get("precision") != choice.precision:
        return None
    try:
        classifier = replace(choice, runtime=str(earlier.get("runtime"))).load()
    except (ClassifierError, MissingExtra):
        return None
    return classifier if classifier.sha256 == earlier.get("sha256") else None


def record_failure(task: SlideTask, error: BaseException, config: RunConfig, model: ModelInfo) -> SlideResult:
    """Make a failure the slide's result, in place of whatever was half done."""
    result = SlideResult(
        slide_id=task.slide_id,
        path=str(task.path),
        status="failed",
        reason=_reason(error),
        modality=config.modality,
        model=model,
        version=software_version(),
    )
    partial = partial_folder(task.output, task.slide_id)
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        # On a full disk the row of the table is all that can be had.
        partial.mkdir(parents=True, exist_ok=True)
        write_slide_report(partial / "report.html", result, None, None, {})
        write_result(partial, result)
        publish(task.output, task.slide_id)
    return result


def _reason(error: BaseException) -> str:
    text = without_credentials(" ".join(str(error).split()))
    if isinstance(error, HER2Error):
        return text
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
