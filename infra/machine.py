"""What the machine has left."""

from pathlib import Path
from typing import Any

import psutil

LOOK = 0.5
"""Seconds over which the use of the processors is measured."""


def measure_machine(folder: Path) -> dict[str, Any]:
    """Tell of processors, memory, and the disk that the folder is on. Takes LOOK seconds."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(next(path for path in (folder, *folder.parents) if path.exists())))
    return {
        "cpus": psutil.cpu_count(),
        "cpu_percent": psutil.cpu_percent(LOOK),
        "load_1m": psutil.getloadavg()[0],
        "memory_bytes": memory.total,
        "memory_percent": memory.percent,
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
        "disk_percent": disk.percent,
    }
