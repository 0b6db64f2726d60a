"""The key buffer: what is in it after each change, and which part of it is still as it was."""

import pytest
import torch

from easyedit_neuron.errors import StateError
from easyedit_neuron.locate_then_edit.solver.key_buffer import KeyBuffer


def _numbered(*numbers):
    """Keys of length 3 that hold their own number."""
    return torch.tensor(numbers, dtype=torch.float32).repeat(3, 1)


def _numbers(buffer):
    assert buffer.columns().shape == (3, len(buffer))
    return buffer.columns()[0].tolist()


def _filled(count):
    buffer = KeyBuffer(3)
    buffer.append(_numbered(*range(count)))
    return buffer


def test_append_keeps_order_over_every_growth():
    buffer = KeyBuffer(3)
    for number in range(50):
        buffer.append(_numbered(number))
    buffer.append(_numbered())
    buffer.append(_numbered(*range(50, 200)))
    assert _numbers(buffer) == list(range(200)) and buffer.version == 0


def test_columns_and_rows_are_views_of_a_range():
    buffer = _filled(6)
    assert buffer.rows(2, 4)[:, 1].tolist() == [2, 3]
    assert buffer.rows(4, 100)[:, 1].tolist() == [4, 5]
    assert torch.equal(buffer.rows(), buffer.columns().T)
    assert buffer.columns().data_ptr() == buffer.columns().data_ptr() == buffer.rows().data_ptr()


def test_memory_is_at_most_twice_what_is_needed():
    buffer = KeyBuffer(3)
    for number in range(1000):
        buffer.append(_numbered(number))
    assert 1000 * 3 * 4 <= buffer.held_bytes <= 2 * 1000 * 3 * 4


def test_keys_are_taken_over_in_the_buffers_dtype():
    buffer = KeyBuffer(3, dtype=torch.float64)
    buffer.append(_numbered(1).bfloat16().requires_grad_())
    assert buffer.columns().dtype == torch.float64 and not buffer.columns().requires_grad


def test_truncate():
    buffer = _filled(6)
    buffer.truncate(6)
    assert buffer.version == 0
    buffer.truncate(4)
    assert _numbers(buffer) == [0, 1, 2, 3] and buffer.version == 1
    buffer.append(_numbered(9))
    assert _numbers(buffer) == [0, 1, 2, 3, 9]


@pytest.mark.parametrize(
    "start, stop, left, untouched",
    [
        (1, 3, [0, 3, 4, 5], 1),
        (4, 6, [0, 1, 2, 3], 4),
        (3, 3, [0, 1, 2, 3, 4, 5], 6),
        (0, 1, [1, 2, 3, 4, 5], 0),
        (0, 6, [], 0),
    ],
)
def test_remove(start, stop, left, untouched):
    buffer = _filled(6)
    buffer.remove(start, stop)
    assert _numbers(buffer) == left
    assert buffer.unchanged_since(0) == untouched
    assert buffer.version == (len(left) < 6)


def test_unchanged_since_is_the_lowest_cut_since_then():
    buffer = _filled(6)
    buffer.truncate(4)
    buffer.append(_numbered(7, 8, 9))
    assert buffer.unchanged_since(0) == 4 and buffer.unchanged_since(1) == 7
    buffer.remove(5, 6)
    assert [buffer.unchanged_since(v) for v in range(3)] == [4, 5, 6]


def test_a_copy_is_independent():
    buffer = _filled(4)
    twin = buffer.copy()
    buffer.truncate(1)
    twin.append(_numbered(9))
    assert _numbers(twin) == [0, 1, 2, 3, 9] and _numbers(buffer) == [0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda b: b.append(torch.ones(2, 1)),
        lambda b: b.append(torch.ones(3)),
        lambda b: b.append(_numbered(float("inf"))),
        lambda b: b.truncate(7),
        lambda b: b.truncate(-1),
        lambda b: b.remove(5, 7),
        lambda b: b.remove(-1, 2),
        lambda b: b.remove(4, 3),
    ],
)
def test_bad_input_changes_nothing(wrong):
    buffer = _filled(6)
    with pytest.raises(StateError):
        wrong(buffer)
    assert _numbers(buffer) == [0, 1, 2, 3, 4, 5] and buffer.version == 0
