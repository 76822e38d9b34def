"""What was wrong with a command line, in a sentence that names what the command takes."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError


def sentence(program: str, error: CycloptsError) -> str:
    """Return the error as one line, with the remedy."""
    command = " ".join(error.command_chain or ())
    text = " ".join(str(error).split()).rstrip(" .,")
    takes = _takes(error.target) if error.target is not None and command else []
    if isinstance(error, MissingArgumentError) and _name(error) not in takes:
        text = f"{_name(error)} needs a value"
    elif isinstance(error, MissingArgumentError):
        missing = f"; {_name(error)} is missing" if len(takes) > 1 else ""
        text = f"{command} takes {_listed(takes)}{missing}"
        text += _strays(error.unused_tokens or [])
    elif isinstance(error, UnusedCliTokensError) and command:
        text = f"{command} takes {_listed(takes) if takes else 'options only'}{_strays(error.unused_tokens or [])}"
    return f"{text}; see {program} {command} --help".replace("  ", " ")


def _strays(words: list[str]) -> str:
    return f", and has no place for {' '.join(map(repr, words))}" if words else ""


def _takes(command: Callable[..., Any]) -> list[str]:
    """Return what a command must be given: words in capitals, then options."""
    needed = [p for p in inspect.signature(command).parameters.values() if p.default is p.empty]
    return [_option(p) if p.kind is p.KEYWORD_ONLY else p.name.upper() for p in needed]


def _option(parameter: inspect.Parameter) -> str:
    if get_origin(parameter.annotation) is Annotated:
        for extra in get_args(parameter.annotation)[1:]:
            if name := getattr(extra, "name", None):
                return str(name if isinstance(name, str) else name[0])
    return f"--{parameter.name.replace('_', '-')}"


def _name(error: MissingArgumentError) -> str:
    if error.argument is None:
        return "one of them"
    parameter = error.argument.field_info
    words = [p for p in _takes(error.target) if p.lower() == str(parameter.name)] if error.target else []
    return words[0] if words else str(error.argument.name)


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
