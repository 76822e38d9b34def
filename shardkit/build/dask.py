"""An executor on an existing Dask cluster. Its workers need the source, the dataset's store and this package.

No key leaves this process, but what workers read in headers travels to it in clear: use a tls:// scheduler where the
network is not trusted.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from shardkit.errors import ArgumentError

ANSWERS = 10.0
"""Seconds that a scheduler has to answer."""


@contextmanager
def dask_executor(address: str) -> Iterator[tuple[Executor, int, int]]:
    """Yield an executor on a scheduler, worker threads in all, and the most threads of one worker.

    Parameters
    ----------
    address : str
        Such as tls://scheduler:8786.

    Raises
    ------
    ArgumentError
        Where it cannot be used.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ArgumentError("--dask needs the dask extra: pip install 'shardkit[dask]'") from None
    try:
        client = Client(address, timeout=ANSWERS)
    except (OSError, ValueError, TimeoutError) as error:
        raise ArgumentError(f"no Dask scheduler answers at {address} ({type(error).__name__}): check --dask") from None
    try:
        threads = list(client.nthreads().values())
        if not threads:
            raise ArgumentError(f"the Dask scheduler at {address} has no workers: start `dask worker {address}`")
        # A shard is not pure in Dask's sense: the same call must run again after its worker died.
        yield client.get_executor(pure=False), sum(threads), max(threads)
    finally:
        client.close()
