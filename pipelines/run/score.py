"""`score` from inputs to summary: find the slides, score them on a cluster, keep the record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.cluster import ACCELERATOR, connect, has_accelerators
from pipelines.configuration import ComputeSettings, RunConfig
from pipelines.fingerprint import software_version
from pipelines.lab_profiles import find_profile
from pipelines.results import partial_folder, publish, write_result
from pipelines.run.ledger import Ledger
from pipelines.run.progress import RunProgress
from pipelines.run.record import Record, command_line, describe_run, earlier_model
from pipelines.scheduling.causes import reason_of
from pipelines.scheduling.events import BlockDone, Event, SlideDone, SlideFailed
from pipelines.scheduling.schedule import Limits, score_slides
from pipelines.scheduling.slide_queue import SlideQueue
from pipelines.scheduling.watch import FolderWatch
from pipelines.slide_claims import Claims
from pipelines.sources import PARTIAL_FOLDER, check_output, find_regions, find_slides, known_slides, name_slides
from pipelines.worker.finishing import model_info
from pipelines.worker.steps import Steps
from pipelines.worker.task import SlideTask
from wsi_her2.errors import ClassifierError, ClusterLost, ConfigurationError, MissingExtra
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.loading import MEMBRANE, ClassifierChoice
from wsi_her2.reports.slide_content import slide_content
from wsi_her2.reports.slide_report import write_slide_report
from wsi_her2.scoring.call import tumour_classes_of
from wsi_her2.scoring.result import Cause, ModelInfo, SlideResult
from wsi_her2.slides.location import SlideLocation, SlideUrl, locate, without_credentials

_LOOK_FOR_CLUSTER_S = 2.0
_WITHOUT_LOCAL_WORKERS_S = 30.0
"""After which the workers of this machine, which Dask starts again when they die, are given up and replaced."""


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
    watch: bool = False,
    steps: Steps | None = None,
    console: Console | None = None,
) -> RunSummary:
    """Score slides and write everything that `docs/outputs.md` describes.

    Parameters
    ----------
    inputs : sequence of str or pathlib.Path
        Slide files and folders of slides; as text also their URLs.
    output : pathlib.Path
        Made if needed. What it holds of an equal run is reused, and other runs may write into it at the same time:
        each slide is scored by one of them.
    config : RunConfig
    fresh : bool
        Score again what an earlier run has scored.
    fail_fast : bool
        Stop at the first slide that fails.
    watch : bool
        Go on until interrupted, and score slides as they appear in the folders.
    steps : Steps, optional
        What the workers do; others can be put in their place, to try the schedule alone.
    console : rich.console.Console, optional
        Where progress goes; stderr by default.

    Raises
    ------
    ConfigurationError, ClassifierError, OutputError, SlideError, MissingExtra
        Nothing was scored, and the message says what to do.
    ClusterLost
        The cluster has gone and did not come back. Finished slides and finished blocks are kept.
    KeyboardInterrupt
        Finished slides and finished blocks are kept. With `watch` that is the end, and not raised.
    """
    console = console or Console(stderr=True)
    given = [locate(one) for one in inputs]
    watched = check_watched(given) if watch else []
    paths = [] if watch else find_slides(given)
    check_output(output, given)
    output = output.resolve()
    choice, classifier = resolve_classifier(config, earlier_model(output))
    choice = resolve_on_cluster(config, choice)
    info = replace(model_info(classifier), runtime=choice.runtime)
    lab, lab_sha256 = find_profile(config, classifier)
    common = SlideTask("", output, output, config, choice, classifier.sha256, fresh, None, lab, lab_sha256)
    argv = [without_credentials(word) for word in command_line()]
    run = describe_run(argv, config.model_dump(mode="json"), asdict(info))
    by_slide: dict[str, SlideResult] = {}
    with (
        Claims(output) as claims,
        Record(output, claims, run) as record,
        RunProgress(0, console) as progress,
    ):
        ledger = Ledger(output, claims)
        tasks = _Tasks(common, claims, ledger, more_to_come=watch)
        folder = FolderWatch(watched, config.compute.settle_s)

        def arrivals() -> list[SlideTask]:
            if record.is_behind:
                record.refresh()
            arrived = tasks.of(folder.arrivals())
            progress.expect(len(arrived))
            return arrived

        wanted = tasks.of(paths)
        progress.expect(len(wanted))
        queue = SlideQueue(wanted, claims, arrivals if watch else None)
        try:
            with closing(_events(queue, config.compute, choice, steps, record, progress)) as events:
                for event in events:
                    result = None
                    if isinstance(event, SlideDone):
                        result = event.result
                    elif isinstance(event, SlideFailed):
                        result = record_failure(event.task, event.error, event.cause, config, info)
                    ledger.note(event)
                    if result is not None:
                        by_slide[result.slide_id] = result
                        record.add(result)
                    progress.show(event, result)
                    if fail_fast and result is not None and result.status == "failed":
                        break
        except KeyboardInterrupt:
            if not watch:
                raise
    with suppress(OSError):
        (output / PARTIAL_FOLDER).rmdir()
    order = by_slide if watch else (task.slide_id for task in wanted)
    return RunSummary(output, tuple(by_slide[slide_id] for slide_id in order if slide_id in by_slide))


def _events(
    queue: SlideQueue,
    compute: ComputeSettings,
    choice: ClassifierChoice,
    steps: Steps | None,
    record: Record,
    progress: RunProgress,
) -> Generator[Event, None, None]:
    """What happens, on a cluster that may go and come back."""
    losses, give_up_at = 0, None
    while True:
        try:
            with connect(compute) as client:
                give_up_at = None
                record.run["workers"] = sum(client.nthreads().values())
                limits = Limits(
                    max_slides_open=compute.max_slides_open,
                    max_blocks_in_flight=compute.max_blocks_in_flight,
                    attempts=compute.attempts,
                    retry_wait_s=compute.retry_wait_s,
                    step_limit_s=compute.step_limit_s,
                    worker_wait_s=compute.cluster_wait_s if compute.scheduler else _WITHOUT_LOCAL_WORKERS_S,
                    blocks_need={ACCELERATOR: 1} if choice.runtime == "torch" and has_accelerators(client) else {},
                )
                for event in score_slides(client, queue, limits, steps):
                    losses = 0 if isinstance(event, BlockDone) else losses
                    yield event
                return
        except ClusterLost as error:
            losses += 1
            if losses >= compute.attempts:
                raise
            again = (
                "Starting another."
                if compute.scheduler is None
                else f"Waiting {compute.cluster_wait_s:g} s for it."
            )
            progress.say(f"{error} {again}")
            give_up_at = time.monotonic() + compute.cluster_wait_s
        except ConfigurationError:
            if give_up_at is None or time.monotonic() > give_up_at:
                raise
            time.sleep(_LOOK_FOR_CLUSTER_S)


@dataclass(frozen=True)
class _Tasks:
    """Makes tasks of slides, each under an identifier that no other run into the folder uses."""

    common: SlideTask
    claims: Claims
    ledger: Ledger
    more_to_come: bool
    known: dict[str, str] = field(default_factory=dict)

    def of(self, paths: Sequence[SlideLocation]) -> list[SlideTask]:
        if not paths:
            return []
        task = self.common
        regions = find_regions(task.config.regions.files, paths, more_to_come=self.more_to_come)
        with self.claims.tables():
            noted = self.ledger.names()
            if not self.known:
                self.known.update(known_slides(task.output, noted))
            self.known.update(noted)
            sources = name_slides(paths, self.known)
            self.ledger.wait((s.slide_id, str(s.path)) for s in sources if s.slide_id not in noted)
        self.known.update({source.slide_id: str(source.path) for source in sources})
        return [replace(task, slide_id=s.slide_id, path=s.path, regions=regions.get(s.path)) for s in sources]


def check_watched(inputs: Sequence[SlideLocation]) -> list[Path]:
    """See that what is to be watched is there.

    Raises
    ------
    ConfigurationError
        Something is not, or is not on a disk of this machine.
    """
    watched = []
    for given in inputs:
        if isinstance(given, SlideUrl):
            raise ConfigurationError(f"{given}: only folders of this machine can be watched; leave out --watch")
        if not given.exists():
            raise ConfigurationError(f"{given}: no such file or folder")
        watched.append(given)
    return watched


def resolve_on_cluster(config: RunConfig, choice: ClassifierChoice) -> ClassifierChoice:
    """Let a worker of a given cluster choose the runtime: the machine of the client may be another kind.

    Raises
    ------
    ConfigurationError, ClassifierError
    """
    if config.compute.scheduler is None or config.runtime != "auto" or choice.name_or_path == MEMBRANE:
        return choice
    with connect(config.compute) as client:
        need = {ACCELERATOR: 1} if has_accelerators(client) else None
        asked = replace(choice, runtime="auto")
        runtime: str = client.submit(_runtime_here, asked, pure=False, resources=need).result()
    return replace(choice, runtime=runtime)


def _runtime_here(choice: ClassifierChoice) -> str:
    return choice.load().runtime


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


def record_failure(
    task: SlideTask, error: BaseException, cause: Cause, config: RunConfig, model: ModelInfo
) -> SlideResult:
    """Make a failure the slide's result, in place of whatever was half done."""
    fingerprint = ""
    with suppress(OSError):
        fingerprint = task.fingerprint()
    result = SlideResult(
        slide_id=task.slide_id,
        path=str(task.path),
        status="failed",
        reason=reason_of(error),
        cause=cause,
        modality=config.modality,
        model=model,
        version=software_version(),
        fingerprint=fingerprint,
    )
    partial = partial_folder(task.output, task.slide_id)
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        # On a full disk the row of the table is all that can be had.
        partial.mkdir(parents=True, exist_ok=True)
        write_slide_report(partial / "report.html", slide_content(result, None, None, {}))
        write_result(partial, result)
        publish(task.output, task.slide_id)
    return result
