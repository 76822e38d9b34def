"""Instructions for compiled loops that write more than a processor's caches hold.

An ordinary store reads its line of memory first, and drives out of the caches what is needed next. A non-temporal one
does neither: batches are laid out in a third of the time. In such loops no array may be sliced: Numba counts references
by locked instructions, and each waits for all stores that are under way.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

LINE = 64
"""Bytes of a cache's line: what is stored at a time."""
FLOATS = LINE // 4
"""Numbers in it."""
_raw_memcpy: Any = cgutils.raw_memcpy


def _intrinsic(function: Callable[..., Any]) -> Any:
    made: Any = extending.intrinsic
    return made(function)


def _places(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """Return pointers to `out[to]` and `values[of]`, the first four arguments."""
    arrays = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 2))
    return [builder.gep(array.data, [arguments[i]]) for array, i in zip(arrays, (1, 3), strict=True)]


@_intrinsic
def store(_: Any, out: Any, to: Any, values: Any, of: Any) -> Any:
    """Store a line of float32, from `values[of]` on, past the caches at `out[to]`, where a line must begin."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.FloatType(), FLOATS).as_pointer()
        at, start = (builder.bitcast(place, line) for place in _places(context, builder, signature, arguments))
        stored = builder.store(builder.load(start, align=4), at, align=LINE)
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(out, types.intp, values, types.intp), generate


@_intrinsic
def copy(_: Any, out: Any, to: Any, values: Any, of: Any, count: Any) -> Any:
    """Copy `count` float32 from `values[of]` on to `out[to]`, by C's memcpy."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at, start = _places(context, builder, signature, arguments)
        _raw_memcpy(builder, at, start, arguments[4], 4)
        return context.get_dummy_value()

    return types.void(out, types.intp, values, types.intp, types.intp), generate


@_intrinsic
def settle(_: Any) -> Any:
    """Wait until what was stored past the caches can be read by all threads; to be called at the end of a loop."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
