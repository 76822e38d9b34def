"""What a child hands over arrives as it was, whatever its size, and half of it is no message."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import Any

import numpy as np
import pytest

from shardkit.build import messages

MESSAGES: list[Any] = [
    None,
    (2, {"a": [1, "b"]}, False),
    b"",
    bytes(3_000_000),  # larger than what a pipe holds
    [bytes([n]) * 100_000 for n in range(200)],
    [f"{n}" for n in range(5_000)],
    np.arange(600_000, dtype=np.uint16),
    (1, b"short after long"),
]


def test_messages_arrive_one_after_another_as_they_were() -> None:
    here, there = multiprocessing.Pipe()

    def give() -> None:
        for message in MESSAGES:
            messages.send(there, messages.pickled(message))

    sender = threading.Thread(target=give)
    sender.start()
    receiver = messages.Receiver(here)
    for message in MESSAGES:
        np.testing.assert_equal(receiver.next(), message)
    sender.join()


def test_what_was_taken_does_not_change_with_the_next_message() -> None:
    here, there = multiprocessing.Pipe()
    receiver = messages.Receiver(here)
    messages.send(there, messages.pickled(b"first"))
    first = receiver.next()
    messages.send(there, messages.pickled(b"other"))
    assert (first, receiver.next()) == (b"first", b"other")


def test_long_bytes_are_handed_over_without_a_copy() -> None:
    image = bytes(1 << 20)
    assert any(piece is image for piece in messages.pickled({"image": image}))


@pytest.mark.parametrize("sent", [0, 5, 8, 100])
def test_a_message_that_is_cut_short_is_the_end(sent: int) -> None:
    here, there = multiprocessing.Pipe()
    whole = b"".join([(1000).to_bytes(8, "little"), bytes(1000)])
    os.write(there.fileno(), whole[:sent])
    there.close()
    with pytest.raises((EOFError, OSError)):
        messages.Receiver(here).next()
