"""Names of splits beside one another: those of the same labels tables with another word."""

import re


def beside(split: str, word: str) -> str:
    """Return the split of the same labels tables with another word: nih14:train and val give nih14:val.

    Parameters
    ----------
    split
        As `shardkit.Loader` takes it; a list of labels tables' splits, too.
    word
        The other split, such as val or test.
    """
    return re.sub("(^|,)([a-z0-9_-]+:)?[^,]*", rf"\1\2{word}", split)
