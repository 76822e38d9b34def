"""What decodes, and with how many threads, by the device and a rank's cores."""

import pytest
import torch

from shardkit.codecs import codec, htj2k
from shardkit.errors import ArgumentError
from shardkit.loader import device as devices

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
OURS = {"a": codec(htj2k.NAME)}


@pytest.mark.parametrize(
    ("cores", "ranks", "on_gpu", "threads"),
    [(16, 1, False, 14), (96, 8, False, 10), (6, 1, False, 4), (5, 1, True, 5), (16, 8, True, 2), (1, 1, True, 1)],
)
def test_a_gpu_decodes_where_its_rank_has_few_cores(
    cores: int, ranks: int, on_gpu: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    graph = devices.decoded_by_graph("auto", OURS, GPU)
    assert graph is on_gpu
    assert devices.threads(GPU, graph) == threads
    assert not devices.decoded_by_graph("auto", OURS, CPU)
    assert devices.threads(CPU, graph=False) == max(1, cores // ranks)


def test_who_names_a_decoder_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert devices.decoded_by_graph("dali", OURS, CPU)
    assert not devices.decoded_by_graph("threads", OURS, GPU)
    monkeypatch.setattr(devices, "cores", lambda: 64)
    assert devices.decoded_by_graph("dali", OURS, GPU)
    assert devices.threads(GPU, graph=True) == 8


def test_what_dali_cannot_decode_threads_do_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    mixed = {**OURS, "b": codec("raw")}
    assert not devices.decoded_by_graph("auto", mixed, GPU)
    with pytest.raises(ArgumentError, match="b holds raw: shardkit transcode makes htj2k of it"):
        devices.decoded_by_graph("dali", mixed, GPU)
