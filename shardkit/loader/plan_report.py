"""`shardkit plan`: what an epoch costs before it is run: tokens, how well it is shuffled, bytes and cache."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.table import Table

from shardkit.dataset.rounding import ceil_div
from shardkit.loader.index import Index
from shardkit.loader.mixture_report import shares, shares_table, without
from shardkit.loader.sample_index import common_levels
from shardkit.plan import EpochPlan, EpochStats
from shardkit.plan.score import Score, score
from shardkit.plan.shuffle import Ints, Order
from shardkit.plan.spec import PlanSpec
from shardkit.terminal.output import Terminal

_TOGETHER = 2  # times chance that samples of one shard may meet before a wider window is advised
_LABELS = {"patient": ("patient",), "scanner": ("device",), "bin": ("bin_height", "bin_width")}


@dataclass(frozen=True, slots=True)
class Costs:
    """What an epoch reads, on all ranks together: of a mixture, samples as often as they are shown.

    Attributes
    ----------
    full_bytes : int
        Bytes of all images at full resolution.
    range_bytes : int
        Bytes that are read without a cache, one range an image.
    shard_bytes : int
        Bytes of the shards: what every machine reads with a cache that holds `window_bytes`. Of a mixture, a shard
        counts for each pass over it.
    window_bytes : int
        Bytes of the shards that are in use at a time.
    shards : int
        How many shards these are.
    all_bytes : int
        Bytes of the shards, each once.
    """

    full_bytes: int
    range_bytes: int
    shard_bytes: int
    window_bytes: int
    shards: int
    all_bytes: int


def costs(index: Index, plan: EpochPlan) -> Costs:
    """Count the bytes of the plan's epoch, from the manifest and the sizes of the shards."""
    sizes = index.columns("level_bytes", "bin_height", "bin_width")["level_bytes"]
    lengths = common_levels(sizes, index.levels).to_numpy().reshape(index.rows, -1)
    wanted = full = 0
    levels = set[int]()
    for piece in range(plan.order.pieces):
        shown = plan.shown(piece)
        wanted += int(lengths[shown.row, shown.level].sum())
        full += int(lengths[shown.row, 0].sum())
        levels.update(np.unique(shown.level).tolist())
    sizes = index.shard_bytes(levels)
    numbers = _shard(index, plan, plan.draws.sample(plan.order.starts[:-1]))
    of_shards = np.array([sizes[index.shards[i]] for i in numbers], np.int64)
    once = sum(sizes[index.shards[i]] for i in np.unique(numbers))
    in_use = min(_most_in_use(plan.order, of_shards), once)
    return Costs(full, wanted, int(of_shards.sum()), in_use, len(of_shards), once)


def _shard(index: Index, plan: EpochPlan, samples: Ints) -> Ints:
    """Find the number of the dataset's shard that each sample of the plan lies in."""
    found: Ints = np.searchsorted(index.shard_starts, plan.samples.row(samples), side="right") - 1
    return found


def _most_in_use(order: Order, sizes: Ints) -> int:
    """Sum the bytes of the shards in use at a time, at most; `sizes` are those of the order's shards."""
    # A shard is in use while positions are in [low, low + width); nothing changes between the lows.
    lows, total = order.lows, np.concatenate([[0], np.cumsum(sizes[order.permutation])])
    begun, over = np.searchsorted(lows, lows, "right"), np.searchsorted(lows, lows - order.width, "right")
    return int((total[begun] - total[over]).max())


def advice(order: Order, found: Costs) -> str | None:
    """Advise where the window is so narrow that samples of one shard meet too often; None where it is wide enough.

    Two samples that are close in an order share one of the shards in use, whatever the shuffle, `order.shards /
    order.width` times as often as any two: only more shards at a time mix further.
    """
    together = order.shards / order.width
    if together <= _TOGETHER:
        return None
    wider = ceil_div(order.shards, _TOGETHER)
    bytes_ = found.window_bytes * wider // order.width
    return (
        f"samples of one shard meet {together:.1f} times as often as in a perfect shuffle, since {order.width:,} of"
        f" {order.shards:,} shards are mixed at a time: where an export is sorted by patient, scanner or date, like"
        f" samples stay together; --window {wider} brings it to {_TOGETHER}, with a cache of about"
        f" {bytes_ / 1e6:,.1f} MB, and without a cache --window {order.shards} costs nothing more"
    )


def scores(index: Index, plan: EpochPlan) -> dict[str, Score]:
    """Score how often two samples of a step share a patient, a scanner, a bin or a shard."""
    found = {}
    for name, columns in _LABELS.items():
        table = index.columns(*columns)
        codes = np.zeros(index.rows, np.int64)
        for column in columns:
            codes = codes * 65536 + _codes(table[column])
        unknown = np.any(
            [table[column].combine_chunks().is_null().to_numpy(zero_copy_only=False) for column in columns], 0
        )
        codes[unknown] = -1
        labels = codes[plan.samples.row(np.arange(len(plan.samples)))]
        found[name] = score(plan, labels)
    if len(index.members) > 1:
        ends = [member.rows.stop for member in index.members]
        rows = plan.samples.row(np.arange(len(plan.samples)))
        found["member"] = score(plan, np.searchsorted(ends, rows, side="right"))
    found["shard"] = score(plan, _shard(index, plan, np.arange(len(plan.samples))))
    return found


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    whole = column.combine_chunks()
    codes = whole if pa.types.is_integer(whole.type) else whole.dictionary_encode().indices
    return np.asarray(codes.fill_null(0).to_numpy(zero_copy_only=False), np.int64)


def show(
    index: Index, plan: EpochPlan, plan_spec: PlanSpec, seed: int, epoch: int, world: int, console: Terminal
) -> None:
    """Print the plan of an epoch as tables."""
    account, bytes_ = plan.account(), costs(index, plan)
    per_rank = plan.batching.per_step // world
    console.print(f"{plan_spec}, seed {seed}, epoch {epoch}", highlight=False, soft_wrap=True)
    tokens = getattr(plan.batching, "tokens", None)
    of = f" of {tokens:,} tokens" if tokens else ""  # which the batching's text leaves out where it is the default
    console.print(
        f"{account.samples:,} samples in {account.steps:,} steps of {plan.batching.per_step} micro-batches{of}"
        f" ({per_rank} on each of {world} ranks), {account.samples / max(account.steps, 1):,.1f} samples a step",
        highlight=False,
    )
    console.print()
    if len(index.members) > 1:
        names = [member.name for member in index.members]
        console.print(shares_table(shares(plan, names)))
        if absent := without(plan.samples, names):
            said = f"no sample of {absent} is in the split {plan_spec.split or 'all'}"
            console.print(said, style="yellow", highlight=False, soft_wrap=True)
        console.print()
    console.print(_tokens(account))
    console.print()
    console.print(_shuffle(scores(index, plan)))
    console.print()
    console.print(_storage(bytes_, world))
    if told := advice(plan.order, bytes_):
        console.print(f"\n{told}", highlight=False, soft_wrap=True)


def _tokens(account: EpochStats) -> Table:
    table = Table("tokens", "count", "of used", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    given = account.real_tokens + account.padding_tokens + account.repeated_tokens
    for name, count in (
        ("used", account.real_tokens),
        ("padded", account.padding_tokens),
        ("repeated", account.repeated_tokens),
        ("dropped", account.dropped_tokens),
    ):
        table.add_row(name, f"{count:,}", f"{100 * count / max(account.real_tokens, 1):.2f} %")
    table.add_row("given to the model", f"{given:,}", f"{100 * account.overhead:.2f} %")
    return table


def _shuffle(found: dict[str, Score]) -> Table:
    table = Table("two samples of a step share", "chance", "perfect shuffle", "ratio", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, value in found.items():
        table.add_row(
            f"their {name}", f"{100 * value.shared:.2f} %", f"{100 * value.expected:.2f} %", f"{value.ratio:.2f}"
        )
    return table


def _storage(found: Costs, world: int) -> Table:
    table = Table("storage, an epoch", "", box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    share = 100 * found.range_bytes / max(found.full_bytes, 1)
    for name, count, note in (
        ("read without a cache, all ranks", found.range_bytes, f"{share:.1f} % of the images' bytes"),
        ("read by a rank", found.range_bytes // world, ""),
        ("read by a machine with a cache", found.shard_bytes, f"{found.shards:,} shards, once"),
        ("that cache needs at least", found.window_bytes, "the shards in use at a time; less reads some again"),
        ("to read every shard only once ever", found.all_bytes, "all of them"),
    ):
        table.add_row(name, f"{count / 1e6:,.1f} MB", note)
    return table
