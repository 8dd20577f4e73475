"""A slide as it is given to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.configuration import RunConfig
from pipelines.fingerprint import slide_fingerprint
from pipelines.results import STORE, partial_folder
from wsi_her2.models.loading import ClassifierChoice
from wsi_her2.slides.location import SlideLocation


@dataclass(frozen=True)
class SlideTask:
    """What a worker needs to know of a slide.

    Attributes
    ----------
    slide_id : str
    path : pathlib.Path or SlideUrl
    output : pathlib.Path
        Folder of the run.
    config : RunConfig
    classifier : ClassifierChoice
        With the runtime that was chosen for the whole run.
    classifier_sha256 : str
        Of the classifier as the run began.
    fresh : bool
        Whether to ignore what earlier runs left.
    regions : pathlib.Path or None
        Annotations of the slide.
    lab : pathlib.Path or None
        Laboratory profile.
    lab_sha256 : str or None
        Of that file as the run began.
    """

    slide_id: str
    path: SlideLocation
    output: Path
    config: RunConfig
    classifier: ClassifierChoice
    classifier_sha256: str
    fresh: bool = False
    regions: Path | None = None
    lab: Path | None = None
    lab_sha256: str | None = None

    @property
    def partial(self) -> Path:
        """Where the results grow."""
        return partial_folder(self.output, self.slide_id)

    @property
    def sampled(self) -> bool:
        """Whether only as many blocks are scored as the call needs."""
        return self.config.sampling.mode == "adaptive"

    @property
    def store(self) -> Path:
        """Where the patches grow."""
        return self.partial / STORE

    def fingerprint(self) -> str:
        """What the slide's result depends on, as things are now.

        Raises
        ------
        OSError
            The slide, or its regions, have gone.
        """
        return slide_fingerprint(
            self.path,
            self.config,
            self.classifier_sha256,
            self.classifier.runtime,
            regions=self.regions,
            lab_sha256=self.lab_sha256,
        )
