"""What there is: the GPU by its own words, its driver, and the libraries that use it."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu_steps import Where
from benchmarks.results import Record

_MIB = 1 << 20


def found(where: Where) -> Record:
    """Return names, versions and sizes; what is missing is named under `missing`."""
    import torch

    figures: Record = {"torch": torch.__version__, "cuda": torch.version.cuda, "missing": []}
    figures["gpu"] = torch.cuda.get_device_name(where.device) if where.on_gpu else ""
    if where.on_gpu:
        of = torch.cuda.get_device_properties(where.device)
        figures |= {
            "capability": f"{of.major}.{of.minor}",
            "multiprocessors": of.multi_processor_count,
            "memory_mib": of.total_memory // _MIB,
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),  # type: ignore[no-untyped-call]
            "bf16": torch.cuda.is_bf16_supported(),
        }
    for name, ask in {"dali": _dali, "driver": _driver, "nvimgcodec": _nvimgcodec}.items():
        try:
            figures[name] = ask()
        except Exception as error:
            figures["missing"].append(f"{name}: {type(error).__name__}")
    return figures


def _dali() -> str:
    from nvidia import dali
    from nvidia.dali import fn  # noqa: F401 - loads the operators, as the loader does

    return str(dali.__version__)


def _driver() -> str:
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    version: Any = pynvml.nvmlSystemGetDriverVersion()
    pynvml.nvmlShutdown()
    return version.decode() if isinstance(version, bytes) else str(version)


def _nvimgcodec() -> str:
    from importlib.metadata import version

    return version("nvidia-nvimgcodec-cu13")
