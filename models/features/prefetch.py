"""A hint to the processor to fetch a row of an array into its cache before a kernel reads it."""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_READ, _KEEP, _DATA = 0, 3, 1


def _prefetch(typing_context: Any, array: Any, row: Any) -> Any:
    """Begin to fetch the cache line where ``array[row]`` starts. The hint changes no result; the row need not exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        (stride, *_) = cgutils.unpack_tuple(builder, view.strides)
        address = cgutils.pointer_add(builder, view.data, builder.mul(arguments[1], stride))
        pointer, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        fetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer], ir.FunctionType(ir.VoidType(), [pointer, word, word, word])
        )
        builder.call(fetch, [builder.bitcast(address, pointer), word(_READ), word(_KEEP), word(_DATA)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Any = intrinsic(_prefetch)
