"""Training a network with Lightning: soft targets, a dense helper, selection on validation, resume, one test."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler

from wsi_her2.learning.patch_augmentation import augment
from wsi_her2.learning.settings import Optimisation, PatchAugmentation
from wsi_her2.models.classifier import Modality
from wsi_her2.models.networks.ather2 import Ather2
from wsi_her2.models.networks.pruneff import PrunEff

Float32 = npt.NDArray[np.float32]

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Fitted:
    """What training left.

    Attributes
    ----------
    network : PrunEff or Ather2
        With the weights of the best epoch by validation.
    history : dict of str to list of float
        By epoch: `train_loss`, `validation_loss`, `validation_accuracy`.
    best_epoch : int
        From 0.
    images_per_s : float
        Patches a second of the training steps.
    seconds : float
        In all, of this run.
    """

    network: PrunEff | Ather2
    history: dict[str, list[float]]
    best_epoch: int
    images_per_s: float
    seconds: float


def fit_network(
    network: PrunEff | Ather2,
    train: Any,
    validation: Any,
    folder: Path,
    *,
    sigmoid: bool,
    modality: Modality,
    optimisation: Optimisation,
    augmentation: PatchAugmentation,
    class_weights: Float32 | None = None,
    dense_weight: float = 0.0,
    freeze_body: bool = False,
    seed: int = 0,
    threads: int | None = None,
    loading_workers: int = 0,
    progress: bool = True,
) -> Fitted:
    """Train a network; continue where an interrupted training of the same folder stopped.

    Parameters
    ----------
    network : PrunEff or Ather2
        Changed in place.
    train, validation : sequences of samples
        See `wsi_her2.learning.samples`.
    folder : pathlib.Path
        For checkpoints and the log.
    sigmoid : bool
        Whether the network's one unit stands for two classes.
    modality : {'ihc', 'he'}
    optimisation : Optimisation
    augmentation : PatchAugmentation
    class_weights : float32 K, optional
        Factor on the loss of each class.
    dense_weight : float
        Weight of a second loss, on the label of every few microns, from a linear layer on the features; the layer
        is dropped after training. Needs samples with `labels`.
    freeze_body : bool
        Train the head only.
    seed : int
    threads : int, optional
        Of torch on the CPU.
    loading_workers : int
        Processes that read images.
    progress : bool
        Whether to show a bar.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    lightning.seed_everything(seed, verbose=False)
    module = _Module(
        network,
        sigmoid=sigmoid,
        modality=modality,
        optimisation=optimisation,
        augmentation=augmentation,
        class_weights=class_weights,
        dense_weight=dense_weight,
        freeze_body=freeze_body,
        seed=seed,
        steps=optimisation.epochs * max(1, len(train) // optimisation.batch),
    )
    checkpoints = ModelCheckpoint(
        folder / CHECKPOINTS,
        "best",
        monitor="validation_loss",
        mode="min",
        save_last=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [checkpoints, _Epochs(train)]
    if optimisation.stop_after:
        callbacks.append(EarlyStopping("validation_loss", patience=optimisation.stop_after, mode="min"))
    if optimisation.average:
        callbacks.append(EMAWeightAveraging(decay=optimisation.average))
    history = _History()
    callbacks.append(history)
    with _quiet():
        trainer = lightning.Trainer(
            max_epochs=optimisation.epochs,
            accelerator="auto",
            devices=1,
            precision=_precision(),
            callbacks=callbacks,
            logger=CSVLogger(folder, name="", version="log"),
            enable_progress_bar=progress,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
        )
        loaders = (
            _loader(train, optimisation.batch, loading_workers, shuffled=True, seed=seed),
            _loader(validation, optimisation.batch, loading_workers, shuffled=False, seed=seed),
        )
        last = folder / CHECKPOINTS / "last.ckpt"
        started = time.perf_counter()
        trainer.fit(module, *loaders, ckpt_path=str(last) if last.is_file() else None, weights_only=False)
        seconds = time.perf_counter() - started
    if trainer.interrupted:
        raise KeyboardInterrupt
    best = torch.load(checkpoints.best_model_path, map_location="cpu", weights_only=False)
    # An averaging callback stores the mean as the module's own weights.
    state = {k.removeprefix("network."): v for k, v in best["state_dict"].items() if k.startswith("network.")}
    network.cpu().load_state_dict(state)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    return Fitted(
        network.eval(),
        history.values,
        int(best["epoch"]),
        history.images / history.seconds if history.seconds else math.nan,
        seconds,
    )


def predict_shares(
    network: PrunEff | Ather2, samples: Any, sigmoid: bool, batch: int = 16
) -> tuple[Float32, Float32]:
    """Probabilities and targets (float32 N x K each) of samples, with the network as it stands."""
    network.eval()
    found, wanted = [], []
    with torch.inference_mode():
        for part in _loader(samples, batch, 0, shuffled=False, seed=0):
            logits = network(part["image"].permute(0, 3, 1, 2).float())
            found.append(_probabilities(logits, sigmoid).numpy())
            wanted.append(part["target"].numpy())
    return np.concatenate(found), np.concatenate(wanted)


class _Module(lightning.LightningModule):
    """The training step around a network."""

    class_weights: Tensor

    def __init__(
        self,
        network: PrunEff | Ather2,
        *,
        sigmoid: bool,
        modality: Modality,
        optimisation: Optimisation,
        augmentation: PatchAugmentation,
        class_weights: Float32 | None,
        dense_weight: float,
        freeze_body: bool,
        seed: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.dense = nn.LazyConv2d(5, 1) if dense_weight else None
        self._sigmoid, self._modality, self._optimisation = sigmoid, modality, optimisation
        self._augmentation, self._dense_weight, self._frozen = augmentation, dense_weight, freeze_body
        self._seed, self._steps = seed, max(1, steps)
        self._generator = torch.Generator().manual_seed(seed)
        weights = torch.ones(1) if class_weights is None else torch.from_numpy(np.asarray(class_weights))
        self.register_buffer("class_weights", weights, persistent=False)
        if self.dense is not None:
            with torch.no_grad():
                side = 128
                self.dense(self.network.eval().with_features(torch.zeros((1, 3, side, side)))[1])
                self.network.train()
        if freeze_body:
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.split(".")[0] in ("hidden", "out", "neck", "neck_norm"))

    def on_train_epoch_start(self) -> None:
        # So that an epoch is the same whether training was interrupted before it or not.
        of_epoch = self._seed * 1_000_003 + self.current_epoch
        self._generator.manual_seed(of_epoch)
        torch.manual_seed(of_epoch)

    def training_step(self, batch: Mapping[str, Tensor], _: int) -> Tensor:
        if self._frozen:
            _freeze_statistics(self.network)
        images = batch["image"].permute(0, 3, 1, 2).float()
        images, labels = augment(images, batch.get("labels"), self._augmentation, self._modality, self._generator)
        logits, features = self.network.with_features(images.contiguous(memory_format=torch.channels_last))
        loss = self._loss(logits.float(), batch["target"])
        if self.dense is not None and labels is not None:
            places = functional.adaptive_avg_pool2d(
                self.dense(features).float(), (labels.shape[-2], labels.shape[-1])
            )
            loss = loss + self._dense_weight * functional.cross_entropy(places, labels, ignore_index=-1)
        if self._optimisation.l2:
            kernels = [p for p in self.network.parameters() if p.ndim == 4]
            loss = loss + self._optimisation.l2 * torch.stack([(k**2).sum() for k in kernels]).sum()
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], _: int) -> None:
        images = batch["image"].permute(0, 3, 1, 2).float()
        logits = self.network(images.contiguous(memory_format=torch.channels_last)).float()
        found = _probabilities(logits, self._sigmoid)
        right = (found.argmax(dim=1) == batch["target"].argmax(dim=1)).float().mean()
        error = (found - batch["target"]).abs().mean()
        for name, value in (
            ("validation_loss", self._loss(logits, batch["target"])),
            ("validation_accuracy", right),
            ("validation_share_error", error),
        ):
            self.log(name, value, prog_bar=name != "validation_share_error", batch_size=len(images))

    def configure_optimizers(self) -> Any:
        settings = self._optimisation
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimiser = _optimiser(parameters, settings)
        if settings.schedule == "constant":
            return optimiser
        if settings.schedule == "plateau":
            scheduler: Any = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimiser,
                mode="max" if settings.plateau_metric == "accuracy" else "min",
                factor=0.1,
                patience=settings.plateau_patience,
                min_lr=settings.min_learning_rate,
            )
            monitored = f"validation_{settings.plateau_metric}"
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "monitor": monitored}}
        warm, steps = max(1, self._steps // 20), self._steps

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy to soft targets; a target of zeros (nothing decided in the patch) does not count."""
        if self._sigmoid:
            each = functional.binary_cross_entropy_with_logits(logits[:, 0], target[:, 1], reduction="none")
            each = each * (target * self.class_weights).sum(dim=1)
        else:
            each = -(target * self.class_weights * torch.log_softmax(logits, dim=1)).sum(dim=1)
        counted = target.sum(dim=1)
        return (each * counted).sum() / counted.sum().clamp(min=1)


class _Epochs(Callback):
    """Tells the samples which epoch it is, so that each has patches of its own."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._samples.epoch = trainer.current_epoch


class _History(Callback):
    """Figures by epoch and the speed of the steps; kept in checkpoints, so that resuming loses none of them."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.images, self.seconds = 0, 0.0
        self._started = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.seconds += time.perf_counter() - self._started
        self.images += len(batch["image"])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        for name, value in trainer.callback_metrics.items():
            self.values.setdefault(name, []).append(float(value))

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "images": self.images, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values, self.images, self.seconds = state_dict["values"], state_dict["images"], state_dict["seconds"]


def _probabilities(logits: Tensor, sigmoid: bool) -> Tensor:
    if sigmoid:
        positive = torch.sigmoid(logits)
        return torch.cat([1 - positive, positive], dim=1)
    return torch.softmax(logits, dim=1)


def _freeze_statistics(network: nn.Module) -> None:
    """Normalisations of a frozen body keep the statistics that they came with."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name != "neck_norm":
            module.eval()


def _optimiser(parameters: list[nn.Parameter], settings: Optimisation) -> torch.optim.Optimizer:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, settings.learning_rate, momentum=0.9, weight_decay=settings.weight_decay
        )
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(
        parameters,
        settings.learning_rate,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        amsgrad=settings.amsgrad,
    )


def _precision() -> Any:
    """Half precision where the device is made for it."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16-mixed" if capable is not None and capable() else "32-true"


def _loader(samples: Sized, batch: int, workers: int, *, shuffled: bool, seed: int) -> DataLoader[Any]:
    return DataLoader(
        _Indexed(samples),
        batch,
        sampler=_Shuffled(len(samples), seed) if shuffled else None,
        drop_last=shuffled and len(samples) > batch,
        num_workers=workers,
    )


class _Shuffled(Sampler[int]):
    """An order for each epoch that depends on its number only, so that resuming changes nothing."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        return iter(torch.randperm(self._count, generator=generator).tolist())


class _Indexed(Dataset[Any]):
    """Samples as torch wants them."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's hints are about settings that were chosen here."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
