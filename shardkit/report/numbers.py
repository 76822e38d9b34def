"""Numbers as a page shows them: plain text, which a template escapes."""


def number(value: float) -> str:
    """Return a whole number with thousands separators.

    Parameters
    ----------
    value : float
        What is rounded.
    """
    return f"{round(value):,}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent.

    Parameters
    ----------
    part, whole : float
        Of which numbers.

    Returns
    -------
    str
        The percentage with one digit; a dash when there is no whole.
    """
    if not whole:
        return "–"
    share = 100 * part / whole
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def size(count: int) -> str:
    """Return bytes in decimal units, with three digits or more.

    Parameters
    ----------
    count : int
        How many bytes.
    """
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    digits = 0 if units[0] == "bytes" or value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {units[0]}"
