"""Libraries that report their use to their makers are kept from it: slides are looked at behind hospital walls.

ONNX Runtime and OpenVINO write an identifier into the user's home and send events over the
network unless they are told otherwise before they are first imported.
"""

from __future__ import annotations

import os
import sys


def forbid_telemetry() -> None:
    """Tell ONNX Runtime and OpenVINO not to report; to be called before either is imported.

    Somebody who has set ONNX Runtime's own variable has decided, and it is left as it is.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # OpenVINO looks for the package that reports, and does without it where it does not import.
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
