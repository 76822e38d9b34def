"""What only the end of a build needs, loaded while child processes convert: drawing takes half a second to load."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread


@contextmanager
def report_loading() -> Iterator[None]:
    """Load what the report is made with, on a thread that has ended when the block has."""
    thread = Thread(target=_load, name="report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _load() -> None:
    with suppress(Exception):  # the report's own import says it
        from shardkit.report import dataset_page, plots  # noqa: F401

        plots.load()
