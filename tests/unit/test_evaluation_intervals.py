"""Bootstrap intervals, against what is known of the mean."""

import numpy
import pytest

from easyedit_neuron.evaluation.intervals import mean_interval, paired_difference


def test_the_interval_of_a_large_sample_is_that_of_the_normal_distribution():
    values = numpy.random.default_rng(1).normal(0.3, 1.0, 400)
    mean, low, high = mean_interval(values)
    error = values.std() / 400**0.5
    assert mean == pytest.approx(values.mean())
    assert (mean - low, high - mean) == (pytest.approx(1.96 * error, rel=0.1),) * 2
    narrow = mean_interval(values, level=0.5)
    assert low < narrow[1] < narrow[2] < high
    assert mean_interval(values) == mean_interval(values) != mean_interval(values, seed=1)


def test_records_without_a_value_do_not_count():
    assert mean_interval([1.0, None, 1.0]) == (1.0, 1.0, 1.0)
    assert mean_interval([None]) is None


def test_pairs_take_out_what_records_share():
    """The same large differences between records on both sides, and 0.1 between the sides."""
    base = numpy.random.default_rng(2).normal(0, 5, 50)
    difference = paired_difference([*(base + 0.1), None], [*base, 1.0])
    assert difference == (pytest.approx(0.1),) * 3
    with pytest.raises(ValueError):
        paired_difference([1.0], [])
