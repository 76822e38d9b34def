"""Numbers on a page."""

from shardkit.report import number, percent, size


def test_units_and_shares_read_well() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345, 999_999, 1_234_567_890)] == [
        "0 bytes", "999 bytes", "1.00 kB", "12.3 kB", "1.00 MB", "1.23 GB",
    ]  # fmt: skip
    assert percent(1, 0) == "–"
    assert percent(1, 1_000_000) == "< 0.1 %"
    assert percent(1, 3) == "33.3 %"
    assert number(1_234_567.8) == "1,234,568"
