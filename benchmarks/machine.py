"""What a benchmark ran on, in words."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from pipelines.cluster import available_cores


def machine() -> str:
    """Platform, processor, cores and Python."""
    model = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", described.read_text(encoding="utf-8"), re.MULTILINE)
        model = named.group(1) if named else model
    return f"{platform.platform()}, {model}, {available_cores()} cores, Python {platform.python_version()}"
