"""The benchmark of facts: both programs join the same rows, whatever a row has of a file's path."""

from pathlib import Path

import pytest

from benchmarks import facts


@pytest.mark.parametrize("by", facts.WAYS)
def test_both_programs_give_every_file_its_row(by: str, tmp_path: Path) -> None:
    facts.make(str(tmp_path / "tables"), 60, by)
    for program in (facts.shardkit, facts.pandas):
        seconds = program(str(tmp_path / "tables"), 60)
        assert set(seconds) == set(facts.STAGES)
        assert min(seconds.values()) >= 0


def test_the_table_names_rows_stages_and_the_ratio() -> None:
    stages = {key: {"median": 2.0, "low": 2.0, "high": 2.0} for key in ("read_s", "join_s", "give_s", "seconds")}
    row = {name: stages | {"peak_mib": {"median": 100.0, "low": 1.0, "high": 1.0}} for name in facts.PROGRAMS}
    found = {"machine": {"cores": 2}, "conditions": {"repeats": 1}, "rows": [{"rows": 1000, "by": "name", **row}]}
    said = facts.readme(found)
    assert "| 1,000, name | 2.00 s | 2.00 s | 2.00 s | 2.00 s | 100 | 2.00 s | 100 |" in said
    assert "1,000 rows, name: **1.00**" in said
