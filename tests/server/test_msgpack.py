"""MessagePack: arrays of numbers come back bit for bit, nothing else becomes an array, and nothing is unpickled."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from support.results import assert_same
from tercet.errors import InvalidInputError
from tercet_server.msgpack import pack, unpack

KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"]
DTYPES = st.sampled_from([np.dtype(order + kind) for kind in KINDS for order in "<>"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3)


def told(**changes):
    """The map of a small array, with some of its entries changed."""
    whole = {"nd": True, "type": "<f4", "kind": b"", "shape": [2], "data": bytes(8)} | changes
    return msgspec.msgpack.encode({"x": {name.encode(): value for name, value in whole.items()}})


@given(arrays.arrays(DTYPES, SHAPES))
def test_arrays_survive_bit_for_bit(array):
    assert_same(unpack(pack({"x": [array]}))["x"][0], array)


@given(st.floats(width=32), st.integers(-128, 127))
def test_scalars_survive_bit_for_bit(number, integer):
    for scalar in (np.float32(number), np.int8(integer)):
        back = unpack(pack([scalar]))[0]
        assert (back.dtype, back.tobytes()) == (scalar.dtype, scalar.tobytes())


def test_an_array_is_the_published_map():
    assert msgspec.msgpack.decode(pack(np.arange(6, dtype=np.float32).reshape(2, 3))) == {
        b"nd": True,
        b"type": "<f4",
        b"kind": b"",
        b"shape": [2, 3],
        b"data": np.arange(6, dtype="<f4").tobytes(),
    }
    assert msgspec.msgpack.decode(pack(np.float32(1))) == {b"nd": False, b"type": "<f4", b"data": b"\0\0\x80?"}


def test_arrays_are_views_of_the_body():
    assert not unpack(told())["x"].flags.owndata


@pytest.mark.parametrize("nd", [True, False])
@pytest.mark.parametrize(
    "dtype", ["|O", "O", "|S4", "<U1", "|V8", "<c8", "<M8[s]", "f4,f4", "", None, 7, [["a", "<f4"]]]
)
def test_only_numbers_become_arrays(nd, dtype):
    with pytest.raises(InvalidInputError, match="only arrays of numbers"):
        unpack(told(nd=nd, type=dtype))


@pytest.mark.parametrize("kind", [b"O", b"V", "O", 1])
def test_pickles_and_structures_are_refused(kind):
    with pytest.raises(InvalidInputError, match="only arrays of numbers"):
        unpack(told(kind=kind))


@pytest.mark.parametrize("shape", [[-2], [2.0], ["2"], [True, 2], None, 2, [1] * 9, [[2]]])
def test_shapes_are_sizes(shape):
    with pytest.raises(InvalidInputError, match="shape must be at most 8 sizes"):
        unpack(told(shape=shape))


@pytest.mark.parametrize(
    "changes", [{"shape": [3]}, {"shape": [2**40, 2**40]}, {"data": b"1"}, {"data": "text"}, {"shape": []}]
)
def test_data_must_fill_the_shape(changes):
    with pytest.raises(InvalidInputError, match="does not fill its shape"):
        unpack(told(**changes))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x92\x01", b"\xa1\xff", b"\x91" * 100_000, b"{}" * 3, b"\x81\x80\x02"]
)
def test_what_is_no_messagepack_is_refused(body):
    with pytest.raises(InvalidInputError, match=r"MessagePack|nested too deeply"):
        unpack(body)


@given(st.binary(max_size=200))
def test_nothing_but_invalid_input_comes_of_any_bytes(body):
    try:
        unpack(body)
    except InvalidInputError as error:
        assert error.message
