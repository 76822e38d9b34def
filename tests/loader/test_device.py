"""What decodes, and with how many threads, by the device and a rank's cores."""

import pytest
import torch

from shardkit.codecs import codec, htj2k
from shardkit.errors import ArgumentError
from shardkit.loader import device as devices

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
OURS = {"a": codec(htj2k.NAME)}


@pytest.mark.parametrize(
    ("cores", "ranks", "decoding", "feeding"),
    [(16, 1, 14, 8), (96, 8, 10, 8), (6, 1, 4, 6), (16, 8, 1, 2), (1, 1, 1, 1)],
)
def test_a_gpu_decodes_and_two_cores_are_left_to_its_program(
    cores: int, ranks: int, decoding: int, feeding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert devices.decoded_by_graph("auto", OURS, GPU)
    assert not devices.decoded_by_graph("auto", OURS, CPU)
    assert devices.threads(GPU, graph=True) == feeding
    assert devices.threads(GPU, graph=False) == max(1, decoding)
    assert devices.threads(CPU, graph=False) == max(1, cores // ranks)


def test_who_names_a_decoder_gets_it() -> None:
    assert devices.decoded_by_graph("dali", OURS, CPU)
    assert devices.decoded_by_graph("dali", OURS, GPU)
    assert not devices.decoded_by_graph("threads", OURS, GPU)


def test_what_dali_cannot_decode_threads_do_on_a_gpu_too() -> None:
    mixed = {**OURS, "b": codec("raw")}
    assert not devices.decoded_by_graph("auto", mixed, GPU)
    with pytest.raises(ArgumentError, match="b holds raw: shardkit transcode makes htj2k of it"):
        devices.decoded_by_graph("dali", mixed, GPU)
