"""The command that mixes datasets."""

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from shardkit.commands import console
from shardkit.commands.normalising import normalise_of
from shardkit.errors import ArgumentError

if TYPE_CHECKING:
    from shardkit.dataset.mixture import MemberSpec


def mix(
    mixture: str,
    /,
    *members: str,
    normalise: Annotated[tuple[str, ...], Parameter(negative=())] = (),
) -> int:
    """Write a small file that names datasets, to be loaded as one, and print what each is of an epoch.

    Nothing is copied: `Loader("cocktail.json")`, plan, replay and the trainer read the datasets where they are.

    Parameters
    ----------
    mixture
        The file to write, whose name ends with .json. A mixture of that name is replaced.
    members
        NAME=DATASET:WEIGHT each, as nih=shards/nih:0.5: an epoch shows each sample WEIGHT times on average (2.5: two or
        three times; 0.25: a quarter of the samples, others each epoch). Without :WEIGHT, once.
    normalise
        NAME=HOW: what happens to the grey levels of a member, instead of the Loader's choice, as nih=zscore or
        nih=0.51,0.25 (mean,deviation). May be given for several members.
    """
    from shardkit.dataset.mixture import MemberSpec, check, is_mixture, write
    from shardkit.loader.mixture_index import MixtureIndex
    from shardkit.loader.mixture_report import MemberShare, shares_table

    if not is_mixture(mixture):
        raise ArgumentError(f"{mixture} is no name for a mixture's file: end it with .json")
    specs = _normalised([MemberSpec.typed(text) for text in members], normalise)
    check(specs)
    index = MixtureIndex(mixture, members=specs)
    known = [replace(spec, digest=of.index.digest) for spec, of in zip(specs, index.members, strict=True)]
    write(mixture, known)
    found = [MemberShare(of.name, of.weight, of.index.rows, of.index.description.pixels) for of in index.members]
    console.print(shares_table(found))
    console.print(f"\n{mixture}: mixture {index.digest[:12]}", highlight=False, soft_wrap=True)
    index.close()
    _print_shared([spec.url for spec in specs])
    return 0


def _print_shared(urls: list[str]) -> None:
    """Say which members hold the same images, and how to find those that are nearly the same."""
    from shardkit.dataset.overlap import overlaps
    from shardkit.storage import shown
    from shardkit.terminal.words import counted

    for found in overlaps(urls, equal_only=True) if len(urls) > 1 else []:
        if found.pairs.num_rows:
            parted = f", {found.leaks:,} in train of one and in another split of the other" if found.leaks else ""
            images = counted(found.pairs.num_rows, "image")
            said = f"{found.first} and {found.other} share {images} by their pixels{parted}"
            console.print(said, style="yellow", highlight=False, soft_wrap=True)
    if len(urls) > 1:
        names = " ".join(shlex.quote(shown(url)) for url in urls)
        hint = f"to look for nearly the same images: shardkit overlap {names}"
        console.print(hint, style="dim", highlight=False, soft_wrap=True)


def _normalised(specs: "list[MemberSpec]", asked: tuple[str, ...]) -> "list[MemberSpec]":
    """Return the members with what was asked for of their grey levels."""
    by_name = {spec.name: spec for spec in specs}
    for text in asked:
        name, _, how = text.partition("=")
        if name not in by_name or not how:
            raise ArgumentError(
                f"--normalise {text} names no member: write NAME=HOW, as {next(iter(by_name), 'nih')}=zscore"
            )
        by_name[name] = replace(by_name[name], normalise=normalise_of(how, f"--normalise {how}"))
    return [by_name[spec.name] for spec in specs]
