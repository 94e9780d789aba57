from __future__ import annotations

import contextlib
import io
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from submission import pickled
from submission.pickled import PickledError, decode, encode

DTYPES = st.sampled_from(
    [">i4", "<f2", "<f4", ">f8", "|b1", "|u1", "<u8", "<i8", "|i1", "<u2"],
).map(np.dtype)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
)
TREES = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.one_of(ARRAYS, NUMBERS),
        lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    return stream.getvalue()


def npy(payload: bytes, shape: str = "()") -> bytes:
    """`payload` behind the header of one object."""
    head = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + payload


def pickled_by_hand(value: Any, protocol: int) -> bytes:
    objects = np.empty((), dtype=object)
    objects[()] = value
    return npy(pickle.dumps(objects, protocol))


def wrapped(inner: bytes) -> bytes:
    """`inner`, opcodes that leave one value, as the value `a` of the stored dict."""
    sample = encode({"a": True})
    return sample.replace(b"X\x01\x00\x00\x00a\x88", b"X\x01\x00\x00\x00a" + inner)


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert one.dtype.newbyteorder("=") == other.dtype.newbyteorder("=")
        np.testing.assert_array_equal(one, other, strict=False)
        assert one.shape == other.shape
    else:
        assert one == other
        assert isinstance(other, type(one)) or isinstance(one, np.generic)


@FEW
@given(TREES)
def test_numpy_and_decode_read_what_encode_writes(tree):
    data = encode(tree)
    assert_same(tree, decode(data))
    assert_same(tree, np.load(io.BytesIO(data), allow_pickle=True).item())


@FEW
@given(TREES)
def test_decode_reads_what_numpy_saves(tree):
    assert_same(tree, decode(saved(tree)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(protocol: int):
    tree = {
        "sub-01": {
            "s07e01a": np.arange(6, dtype=np.float32).reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "empty": np.zeros((0, 2), np.float32),
            "again": np.float64(0.5),
        },
        "rows": np.int64(460),
        "short": np.int8(-3),
        "flag": np.bool_(True),
        "long": 1 << 40,
        "name": "x" * 300,
    }
    assert_same(tree, decode(pickled_by_hand(tree, protocol)))


def test_the_names_of_numpy_1_are_known():
    data = saved({"a": np.arange(3.0), "n": np.int64(7)})
    old = data.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    assert old != data
    assert_same({"a": np.arange(3.0), "n": 7}, decode(old))


def test_one_object_in_any_shape():
    tree = {"a": np.ones(2, np.float32)}
    one = np.empty((1,), dtype=object)
    one[0] = tree
    assert_same(tree, decode(saved(one)))


def test_equal_mappings_give_equal_bytes():
    array = np.arange(4, dtype=np.float32)
    shared = {"b": {"x": array, "y": array}, "a": 3}
    separate = {"a": 3, "b": {"y": array.copy(), "x": array[::-1][::-1]}}
    assert encode(shared) == encode(separate)
    assert encode({"a": array.astype(">f4")}) == encode({"a": array})


def test_arrays_are_own_and_writable():
    array = decode(saved({"a": np.arange(3.0)}))["a"]
    array[0] = 5.0
    assert array.flags.owndata or array.base.flags.owndata
    assert array.dtype.isnative


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "a list is no mapping"),
        ({1: 2}, "a key is a int, not text"),
        ({"a": {None: 2}}, "a: a key is a NoneType, not text"),
        ({"a": [1]}, "a: a list is neither array, number nor text"),
        ({"a": {"b": None}}, "a/b: a NoneType is neither"),
        ({"a": np.array(["x"])}, "a: an array of <U1"),
        ({"a": np.array([None])}, "a: an array of object"),
        ({"a": np.zeros((1,) * 9)}, "at most 8 axes"),
        ({"a": 1 << 63}, "a: 64 bits"),
        ({"\ud800": 1}, "surrogate"),
    ],
)
def test_encode_refuses(value, message):
    with pytest.raises(PickledError, match=message):
        encode(value)


def nested(depth: int) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def test_depth_has_a_bound():
    assert decode(encode(nested(pickled.MAX_DEPTH))) == nested(pickled.MAX_DEPTH)
    with pytest.raises(PickledError, match="deeper than 8"):
        encode(nested(pickled.MAX_DEPTH + 1))
    with pytest.raises(PickledError, match="deeper than 8"):
        decode(saved(nested(pickled.MAX_DEPTH + 1)))


def test_nothing_a_file_names_is_called(tmp_path: Path):
    marker = tmp_path / "ran"

    class Attack:
        def __init__(self, function, *arguments):
            self.call = (function, arguments)

        def __reduce__(self):
            return self.call

    for function, name in (
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (subprocess.Popen, "subprocess.Popen"),
        (open, "io.open"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
    ):
        for protocol in (2, 3, 4, 5):
            data = pickled_by_hand({"a": Attack(function, str(marker), "w")}, protocol)
            shown = name if protocol > 2 else r".*\..*"  # protocol 2 uses Python 2's names
            with pytest.raises(PickledError, match=f"asks for {shown}: refused"):
                decode(data)
    assert not marker.exists()
    with pytest.raises(PickledError, match=r"asks for os\.system: refused"):
        decode(npy(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."))


NEW = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
OBJECTS = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no .npy file"),
        (b"PK\x03\x04 a zip", "is no .npy file"),
        (b"\x93NUMPY\x09\x00v\x00", "unknown version"),
        (b"\x93NUMPY\x01\x00", "ends inside the .npy header"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "ends inside the .npy header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "ends inside the .npy header, or has an endless"),
        (saved(np.zeros(3)), "something else than one pickled object"),
        (saved(np.array([{"a": 1}, {"b": 2}])), "something else than one pickled object"),
        (saved(np.array([{}, {}]).reshape(2, 1)), "something else than one pickled object"),
        (npy(b""), "ends inside the pickle"),
        (npy(b"\x80\x01."), "protocol 2, 3, 4 or 5"),
        (npy(b"(lp0\n."), "protocol 2, 3, 4 or 5"),
        (npy(b"\x80\x02."), "takes more than it has put down"),
        (npy(b"\x80\x02(."), "MARK"),
        (npy(b"\x80\x02}."), "holds a dict; must be one dict, as numpy.save writes it"),
        (npy(b"\x80\x02h\x00."), "object 0 of its memo"),
        (npy(b"\x80\x02Na."), "takes more"),
        (npy(b"\x80\x02NNa."), "appends to a None"),
        (npy(b"\x80\x02NNNs."), "sets items of a None"),
        (npy(b"\x80\x02}(Nu."), "has no value"),
        (npy(b"\x80\x02}K\x01Ns."), "a key of a dict is a int"),
        (npy(b"\x80\x02]]R."), "calls a list"),
        (npy(b"\x80\x02]]b."), "sets the state of a list"),
        (npy(b"\x80\x04NN\x93."), "whose name is no text"),
        (npy(b"\x80\x02c" + b"x" * 300), "endless"),
        (npy(b"\x80\x02I1\n."), r"opcode b'I' at byte 130: refused"),
        (npy(b"\x80\x02\x8b\xff\xff\xff\x7f"), r"opcode b'\\x8b'"),
        (npy(b"\x80\x02\x8a\xff"), "whole number of 255 bytes"),
        (npy(b"\x80\x04\x8e" + b"\xff" * 8), "ends inside the pickle"),
        (npy(b"\x80\x02X\x01\x00\x00\x00\xff."), "not UTF-8"),
        (saved({"a": 1}) + b"x", "1 bytes follow"),
        (saved({"a": None}), "holds a None"),
        (saved({"a": [1]}), "holds a list"),
        (saved({"a": (1,)}), "holds a tuple"),
        (saved({"a": b"x"}), "holds a bytes"),
        (saved({1: 1}), "a key of a dict is a int"),
        (saved({"a": np.array([{}])}), "holds a numpy array of objects"),
        (saved({"a": np.zeros(2, "<U3")}), "an array of U3"),
        (saved({"a": np.zeros(2, "M8[s]")}), "an array of M8"),
        (saved({"a": 1 << 70}), "whole number of 9 bytes"),
        (wrapped(b"cnumpy\nndarray\n"), "holds a name"),
        (wrapped(b"cnumpy\nndarray\n)R"), "calls a name: refused"),
        (wrapped(b"cnumpy\ndtype\n)R"), "an array of None"),
        (wrapped(b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R"), "holds a type"),
        (wrapped(b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85RNb"), "unknown state"),
        (wrapped(b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R(K\x03X\x01\x00\x00\x00<]NNKKKtb"), "s"),
        (wrapped(b"cnumpy.core.multiarray\nscalar\n)R"), "a number without its bytes"),
        (wrapped(b"cnumpy.core.multiarray\nscalar\nNC\x01x\x86R"), "without its bytes or element"),
        (wrapped(b"cnumpy.core.numeric\n_frombuffer\n)R"), "an array without its bytes"),
        (wrapped(b"cnumpy.core.multiarray\n_reconstruct\n)R"), "reconstructs something else"),
        (wrapped(NEW + b"Nb"), "an array with an unknown state"),
        (wrapped(NEW + b"(K\x01)" + OBJECTS + b"\x89Ntb"), "without its objects"),
        (wrapped(b"c_codecs\nencode\n)R"), "encodes something else"),
        (wrapped(b"c__builtin__\nbytes\nK\x08\x85R"), "makes bytes of something"),
        (
            wrapped(b"c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R"),
            "the bytes of an array are no bytes",
        ),
    ],
)
def test_decode_says_what_it_found(data: bytes, message: str):
    with pytest.raises(PickledError, match=message):
        decode(data)


ARRAY = encode({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"J\x03\x00\x00\x00", b"J\x04\x00\x00\x00", r"shape \(2, 4\) and type float32 needs 32"),
        (b"J\x03\x00\x00\x00", b"J\xff\xff\xff\xff", "no tuple of sizes"),
        (b"J\x03\x00\x00\x00", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", "an endless one"),
        (b"(J\x02\x00\x00\x00", b"(" + b"K\x01" * 8 + b"J\x02\x00\x00\x00", "more than 8 axes"),
        (b"(J\x02\x00\x00\x00J\x03\x00\x00\x00t", b"K\x06", "no tuple of sizes"),
        (b"X\x02\x00\x00\x00f4", b"X\x02\x00\x00\x00b1", "needs 6 bytes, has 24"),
        (b"\x89B\x18", b"\x89N\x18", "opcode"),
        (b"X\x01\x00\x00\x00<", b"X\x01\x00\x00\x00~", "unknown state"),
        (b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00", b"N]NJ\x00\x00\x00\x00K\x00K\x00", "field"),
        (b"\x8catb.", b"\x8cMatb.", "ends inside"),
    ],
)
def test_a_changed_array_is_refused(old: bytes, new: bytes, message: str):
    changed = ARRAY.replace(old, new) if old in ARRAY else ARRAY[:-1]
    with pytest.raises(PickledError, match=message):
        decode(changed)


def test_booleans_are_zero_or_one():
    data = encode({"a": np.array([True, True, False])})
    with pytest.raises(PickledError, match="booleans"):
        decode(data.replace(b"\x01\x01\x00tb", b"\x01\x02\x00tb"))


def test_the_file_and_what_it_unpacks_to_have_bounds():
    data = saved({"a": np.zeros(100)})
    with pytest.raises(PickledError, match=f"{len(data)} bytes; up to 500 are read"):
        decode(data, max_bytes=500)
    array = np.zeros(1000)
    shared = saved({str(i): array for i in range(50)})
    assert len(shared) < 10_000
    assert len(decode(shared)) == 50
    with pytest.raises(PickledError, match="more bytes than are allowed"):
        decode(shared, max_bytes=10_000)


def test_one_text_made_into_bytes_again_and_again():
    text = "x" * 20_000
    opening = (
        b"}c_codecs\nencode\nq\x01X" + struct.pack("<I", len(text)) + text.encode() + b"q\x020"
    )
    again = b"h\x01h\x02X\x06\x00\x00\x00latin1\x86R"
    payload = b"\x80\x02" + opening.replace(b"q\x020", b"q\x02") + again * 100
    with pytest.raises(PickledError, match="more bytes than are allowed"):
        decode(npy(payload), max_bytes=len(payload) + 200)


def test_doubling_through_the_memo(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickled, "MAX_ENTRIES", 10_000)
    value = b"}q\x00"
    for level in range(1, 8):
        shared = b"h" + bytes([level - 1])
        items = [b"X\x01\x00\x00\x00" + bytes([65 + key]) + shared for key in range(16)]
        value = b"}q" + bytes([level]) + b"(" + items[0][:-2] + value + b"".join(items[1:]) + b"u"
    assert len(value) < 1200
    with pytest.raises(PickledError, match="more than 10000 entries"):
        decode(wrapped(value))


def test_a_dict_inside_itself():
    with pytest.raises(PickledError, match="deeper than 8"):
        decode(wrapped(b"}q\x00X\x01\x00\x00\x00ah\x00s"))


def test_opcodes_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickled, "MAX_OPCODES", 1000)
    with pytest.raises(PickledError, match="more than 1000 opcodes"):
        decode(npy(b"\x80\x02" + b"]" * 2000))


SAMPLES = [
    saved({"sub-01": {"e": np.arange(4, dtype=np.float32)}, "n": np.int64(3), "t": "é"}),
    pickled_by_hand({"e": np.arange(4, dtype=np.float32), "n": 3}, 2),
    pickled_by_hand({"e": np.arange(4, dtype=np.float32), "n": 3}, 5),
    encode({"e": np.arange(4, dtype=np.float32), "n": 3}),
]


def outcome(data: bytes) -> None:
    with contextlib.suppress(PickledError):
        assert isinstance(decode(data, max_bytes=1 << 20), dict)


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_every_truncation_is_refused(sample: int):
    for size in range(len(SAMPLES[sample])):
        with pytest.raises(PickledError):
            decode(SAMPLES[sample][:size])


@FEW
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=3))))
def test_damaged_bytes_raise_nothing_else(data, edits):
    for place, inserted in edits:
        data = data[:place] + inserted + data[place + len(inserted) :]
    outcome(data)


@FEW
@given(st.lists(st.sampled_from([*pickled._STEPS, 0x2E]), max_size=40), st.binary(max_size=20))
def test_random_opcodes_raise_nothing_else(codes, noise):
    outcome(npy(b"\x80\x04" + bytes(codes) + noise + b"."))


PROGRAM = """
import io, sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, sys.argv[1])
import numpy as np, pickled
tree = {"s": {"e": np.arange(6, dtype=np.float32).reshape(2, 3), "r": np.int64(4)}, "n": 5}
for data in (pickled.encode(tree), open(sys.argv[2], "rb").read()):
    for found in (pickled.decode(data), np.load(io.BytesIO(data), allow_pickle=True).item()):
        assert found["n"] == 5 and found["s"]["r"] == 4
        assert found["s"]["e"].tobytes() == tree["s"]["e"].tobytes()
np.save(io.BytesIO(), tree, allow_pickle=True)
stream = io.BytesIO()
np.save(stream, tree, allow_pickle=True)
pickled.decode(stream.getvalue())
print(np.__version__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.26.4", "2.2.6"])
def test_both_numpys_write_and_read_it(tmp_path: Path, version: str):
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the named versions of numpy have wheels for Python 3.11")
    stored = tmp_path / "stored.npy"
    tree = {"s": {"e": np.arange(6, dtype=np.float32).reshape(2, 3), "r": 4}, "n": 5}
    stored.write_bytes(encode(tree))
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "pickled.py").write_bytes(Path(pickled.__file__).read_bytes())
    command = ["uv", "run", "--quiet", "--no-project", "--python", sys.executable]
    command += ["--with", f"numpy=={version}", "python", "-c", PROGRAM, str(folder), str(stored)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == version
