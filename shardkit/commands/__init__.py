"""The commands of `shardkit`, by what they are about. Heavy modules are imported where they are used: help is quick."""

import os

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
