"""torch: the reference, and the way to a GPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wsi_her2.models.bundle import Bundle
from wsi_her2.models.extras import need
from wsi_her2.models.runtimes.session import THREADS, RuntimeName
from wsi_her2.slides.backends import RGB


class TorchSession:
    """A bundle's network in torch, on CUDA, Apple's GPU or the CPU, whichever is there first.

    Parameters
    ----------
    bundle : Bundle
    threads : int
        On the CPU. It holds for all of torch in this process.

    Raises
    ------
    MissingExtra
    """

    runtime: RuntimeName = "torch"

    def __init__(self, bundle: Bundle, threads: int = THREADS) -> None:
        torch = need("torch", "The runtime torch")
        need("timm", "The runtime torch")
        from wsi_her2.models.networks.deployed import Deployed, for_inference, network_of

        self._torch = torch
        self.device = _device(torch)
        if self.device == "cpu" and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        network = for_inference(network_of(bundle.card.architecture, bundle.weights))
        deployed = Deployed(network, bundle.card.architecture.sigmoid).eval()
        self._network = deployed.to(self.device).to(memory_format=torch.channels_last)

    def run(self, images: RGB) -> npt.NDArray[np.float32]:
        """Probabilities (float32 N x K) of patches (uint8 N x H x W x 3)."""
        torch = self._torch
        with torch.inference_mode():
            # A copy: torch does not take arrays that are read-only or strided backwards.
            given = torch.from_numpy(np.array(images, order="C")).to(self.device)
            return np.asarray(self._network(given).cpu().numpy(), np.float32)


def _device(torch: object) -> str:
    if torch.cuda.is_available():  # type: ignore[attr-defined]
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"  # type: ignore[attr-defined]
