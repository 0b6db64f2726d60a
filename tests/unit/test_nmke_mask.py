"""The NMKE mask against numbers worked out by hand, and against the released code's steps written again in
numpy."""

import math

import numpy as np
import pytest
import torch

from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.models.nmke import nmke_mask as module
from easyedit_neuron.models.nmke.nmke_hparams import NMKEOptions
from easyedit_neuron.models.nmke.nmke_mask import general_entropy, general_score, specific_entropy

# z-score > 0 means above the row's mean (0 and 1): neurons 0-3 in the first row, neuron 2 in the second
#   Qg = [1, 1, 2, 1, 0] (z-scored), [2, 2, 2, 1, 1] (raw);   Qs = [1, 2, 3, 4, 1]
SCORES = torch.tensor([[1.0, 2.0, 3.0, 4.0, -10.0], [1.0, 1.0, 2.0, 0.0, 1.0]])
# quantile 0.6 of 5 numbers lies at 0.6 * 4 = 2.4, between the third and the fourth of them in order:
#   of Qg: 0 1 1|1 2 -> 1;   of Qs: 1 1 2|3 4 -> 2 + 0.4 * (3 - 2) = 2.4
FIXED = dict(ratio="fixed", general_ratio=0.4, specific_ratio=0.4)


def nmke_mask(scores, layer=None, **options):
    return module.nmke_mask(scores, NMKEOptions(**options), layer)


def _chosen(mask):
    return mask.nonzero().flatten().tolist()


def test_scores_of_the_two_kinds():
    assert general_score(SCORES, "zscore").tolist() == [1, 1, 2, 1, 0]
    assert general_score(SCORES, "raw").tolist() == [2, 2, 2, 1, 1]


def test_ties_at_the_threshold_make_the_mask_denser_than_asked():
    result = nmke_mask(SCORES, **FIXED)
    assert result.general_threshold == 1.0 and result.specific_threshold == pytest.approx(2.4)
    assert _chosen(result.general) == [0, 1, 2, 3] and _chosen(result.specific) == [2, 3]
    assert _chosen(result.mask) == [0, 1, 2, 3]
    assert result.density == 0.8 and result.to_json()["mean_weight"] == pytest.approx(0.8)
    assert result.counts == {"selected": 4, "general": 4, "specific": 2, "overlap": 2}
    assert result.to_json()["ratios"] == {"general": 0.4, "specific": 0.4}
    assert result.mask.dtype == torch.bool and result.indices.tolist() == [0, 1, 2, 3]


def test_ties_can_be_left_out():
    result = nmke_mask(SCORES, ties="exclude", **FIXED)
    assert _chosen(result.general) == [2] and _chosen(result.specific) == [2, 3]
    assert _chosen(result.mask) == [2, 3] and result.density == 0.4


@pytest.mark.parametrize(
    "neurons,expected",
    [
        ("both", [0, 1, 2, 3]),
        ("general", [0, 1, 2, 3]),
        ("specific", [2, 3]),
        ("overlap", [2, 3]),
        ("non_overlap", [0, 1]),
    ],
)
def test_kinds_of_neurons(neurons, expected):
    assert _chosen(nmke_mask(SCORES, neurons=neurons, **FIXED).mask) == expected


def test_raw_scores_as_in_the_paper():
    # Qg = [2, 2, 2, 1, 1]: quantile 0.6 of 1 1 2|2 2 is 2
    assert _chosen(nmke_mask(SCORES, score_form="raw", neurons="general", **FIXED).mask) == [0, 1, 2]


def test_soft_mask_scales_every_neuron_by_its_score():
    # Qg / 2 = [.5 .5 1 .5 0]; (Qs - 1) / 3 = [0 1/3 2/3 1 0]
    general, specific = [0.5, 0.5, 1.0, 0.5, 0.0], [0.0, 1 / 3, 2 / 3, 1.0, 0.0]
    for neurons, expected in (
        ("both", [0.5, 0.5, 1.0, 1.0, 0.0]),
        ("general", general),
        ("specific", specific),
        ("overlap", [0.0, 1 / 3, 2 / 3, 0.5, 0.0]),
        ("non_overlap", [0.5, 1 / 6, 1 / 3, 0.5, 0.0]),
    ):
        result = nmke_mask(SCORES, mask_values="soft", neurons=neurons, **FIXED)
        assert result.mask.dtype == torch.float32
        assert result.mask.tolist() == pytest.approx(expected)
    both = nmke_mask(SCORES, mask_values="soft", **FIXED)
    assert both.density == 0.8 and both.to_json()["mean_weight"] == pytest.approx(0.6)
    assert _chosen(both.specific) == [2, 3]


def test_soft_mask_of_scores_that_tell_nothing_is_one_everywhere():
    assert nmke_mask(torch.full((2, 4), 3.0), mask_values="soft").mask.tolist() == [1.0] * 4


@pytest.mark.parametrize("scores,expected", [([[2.0] * 8] * 3, 1.0), ([[1.0] + [0.0] * 7] * 3, 0.0)])
def test_entropy_of_uniform_and_one_hot_scores(scores, expected):
    scores = torch.tensor(scores)
    assert general_entropy(scores, 30.0).item() == pytest.approx(expected, abs=1e-5)
    assert specific_entropy(scores).item() == pytest.approx(expected, abs=1e-5)
    result = nmke_mask(scores)
    assert result.general_ratio == pytest.approx(0.3 + 0.1 * expected, abs=1e-5)
    assert result.specific_ratio == pytest.approx(0.3 + 0.1 * expected, abs=1e-5)


def test_half_the_entropy():
    # two of four neurons share everything: H = log 2 / log 4 = 1/2
    scores = torch.tensor([[1.0, 1.0, -99.0, -99.0]])
    result = nmke_mask(scores, tau=1.0)
    assert result.to_json()["entropies"] == pytest.approx({"general": 0.5, "specific": 0.5}, abs=1e-5)
    assert result.general_ratio == pytest.approx(0.3 + 0.1 * 0.5**3, abs=1e-5)
    assert result.specific_ratio == pytest.approx(0.3 + 0.1 * 0.5**2, abs=1e-5)
    bounds = nmke_mask(
        scores,
        tau=1.0,
        general_bounds=[0.2, 0.6],
        specific_bounds=[0.1, 0.9],
        gamma_general=1.0,
        gamma_specific=3.0,
    )
    assert bounds.to_json()["ratios"] == pytest.approx({"general": 0.4, "specific": 0.2}, abs=1e-5)
    linear = nmke_mask(
        scores,
        tau=1.0,
        ratio="linear",
        general_scaler=0.5,
        general_bias=0.1,
        specific_scaler=-0.2,
        specific_bias=0.3,
    )
    assert linear.to_json()["ratios"] == pytest.approx({"general": 0.35, "specific": 0.2}, abs=1e-5)


def test_temperature_sharpens_the_general_entropy_only():
    # softmax of (log 3, 0) is (3/4, 1/4); with tau = 2 it is (9/10, 1/10)
    scores = torch.tensor([[math.log(3.0), 0.0]])

    def entropy(p):
        return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)

    assert general_entropy(scores, 1.0).item() == pytest.approx(entropy(0.75), abs=1e-5)
    assert general_entropy(scores, 2.0).item() == pytest.approx(entropy(0.9), abs=1e-5)


def test_the_general_entropy_is_a_mean_over_prompts():
    rows = torch.tensor([[0.0, 0.0, -99.0, -99.0], [0.0, 0.0, 0.0, 0.0]])
    assert general_entropy(rows, 1.0).item() == pytest.approx((0.5 + 1.0) / 2, abs=1e-5)


@pytest.mark.parametrize("scores", [torch.zeros(2, 4), torch.tensor([[-1.0, -2.0, -3.0, 0.0]])])
def test_no_positive_score_means_the_lower_bound(scores):
    assert nmke_mask(scores, specific_bounds=(0.25, 0.75)).specific_ratio == 0.25
    assert nmke_mask(
        scores, ratio="linear", specific_scaler=0.5, specific_bias=0.2
    ).specific_ratio == pytest.approx(0.2)


def test_all_scores_equal_selects_everything_or_nothing(caplog):
    assert nmke_mask(torch.zeros(3, 10)).full
    with caplog.at_level("WARNING", logger="easyedit_neuron"):
        empty = nmke_mask(torch.zeros(3, 10), ties="exclude", layer=4)
    assert empty.size == 0 and empty.density == 0.0 and "layer 4" in caplog.text


def test_one_prompt_is_enough():
    result = nmke_mask(torch.tensor([[5.0, 1.0, 0.0, -6.0]]), **FIXED)
    # Qg = [1, 1, 0, 0], at 0.6 * 3 = 1.8 between 0 and 1 -> 0.8; Qs in order -6 0|1 5 -> 0.8
    assert _chosen(result.mask) == [0, 1] and result.general_threshold == pytest.approx(0.8)


def _released(scores):
    """The released steps in numpy: adaptive ratios, then the two thresholds; (mask, ratio_g, ratio_s)."""

    def entropy(p):
        return -(p * np.log(p + 1e-8)).sum(-1)

    size = scores.shape[1]
    weights = np.exp(30 * (scores - scores.max(1, keepdims=True)))
    h_g = entropy(weights / weights.sum(1, keepdims=True)).mean() / np.log(size)
    best = np.clip(scores.max(0), 0, None)
    h_s = entropy(best / (best.sum() + 1e-8)) / np.log(size)
    ratio_g, ratio_s = 0.3 + 0.1 * h_g**3, 0.3 + 0.1 * h_s**2
    z = (scores - scores.mean(1, keepdims=True)) / (scores.std(1, ddof=1, keepdims=True) + 1e-6)
    counts = (z > 0).sum(0)
    mask = (counts >= np.quantile(counts, 1 - ratio_g)) | (
        scores.max(0) >= np.quantile(scores.max(0), 1 - ratio_s)
    )
    return mask, ratio_g, ratio_s


@pytest.mark.parametrize("prompts", [1, 6, 13])
@pytest.mark.parametrize("spread", [0.01, 0.3, 5.0])
def test_defaults_follow_the_released_code(prompts, spread):
    scores = spread * torch.randn(
        prompts, 701, generator=torch.Generator().manual_seed(prompts), dtype=torch.float64
    )
    mask, ratio_g, ratio_s = _released(scores.numpy())
    result = nmke_mask(scores)
    assert result.general_ratio == pytest.approx(ratio_g, abs=1e-9)
    assert result.specific_ratio == pytest.approx(ratio_s, abs=1e-9)
    assert np.array_equal(result.mask.numpy(), mask)
    single = nmke_mask(scores.float())
    assert int((single.mask != result.mask).sum()) <= 1


def test_scores_are_left_alone_and_half_precision_is_accepted():
    scores = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    copy = scores.clone()
    assert torch.equal(nmke_mask(scores).mask, nmke_mask(scores.float()).mask)
    assert torch.equal(scores, copy)


def test_record_of_a_mask_is_plain_numbers():
    import json

    record = nmke_mask(SCORES, **FIXED).to_json()
    assert json.loads(json.dumps(record))["counts"]["overlap"] == 2
    assert record["d_ff"] == 5 and record["thresholds"]["general"] == 1.0


@pytest.mark.parametrize(
    "options,words",
    [
        (dict(score_form="z-score"), "'score_form': .*did you mean 'zscore'"),
        (dict(ratio="entropic"), "'ratio': .*did you mean 'entropy'"),
        (dict(ties="included"), "'ties': .*did you mean 'include'"),
        (dict(neurons="nonoverlap"), "'neurons': .*did you mean 'non_overlap'"),
        (dict(mask_values="softer"), "'mask_values': .*did you mean 'soft'"),
        (dict(general_bounds=[0.0, 0.2]), "'general_bounds': item 0 must be in .0, 1., not 0.0"),
        (dict(specific_bounds=[0.1, 1.2]), "'specific_bounds': item 1 must be in .0, 1., not 1.2"),
        (dict(specific_bounds=[0.5, 0.2]), "'specific_bounds': .*0 < lo <= hi <= 1"),
        (dict(specific_bounds=0.5), "'specific_bounds': must be a list"),
        (dict(gamma_general=0.0), "'gamma_general': must be greater than 0"),
        (dict(gamma_specific=float("nan")), "'gamma_specific': must be a number"),
        (dict(tau=-1.0), "'tau': must be greater than 0"),
        (dict(tau="hot"), "'tau': must be a number"),
        (dict(ratio="fixed", specific_ratio=0.3), "'general_ratio': ratio 'fixed' needs"),
        (dict(ratio="fixed", general_ratio=0.3, specific_ratio=1.5), "'specific_ratio': must be in"),
        (dict(ratio="linear", general_scaler=0.9, general_bias=0.2), "'general_scaler': the ratio runs"),
    ],
)
def test_bad_options_name_the_option(options, words):
    with pytest.raises(HparamsError, match=words):
        NMKEOptions(**options)


@pytest.mark.parametrize(
    "scores,words",
    [
        (torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), "1 of 4 are not finite \\(first in prompt 0\\)"),
        (torch.tensor([[1.0, 2.0], [float("inf"), 1.0]]), "first in prompt 1"),
        (torch.zeros(5), "\\[prompts, d_ff\\], got torch.float32 \\[5\\]"),
        (torch.zeros(0, 5), "at least one prompt"),
        (torch.zeros(2, 5, dtype=torch.long), "floating-point"),
        (torch.zeros(2, 1), "at least two neurons"),
        ([[1.0, 2.0]], "got list"),
    ],
)
def test_bad_scores_are_refused(scores, words):
    with pytest.raises(MaskError, match=words):
        nmke_mask(scores)
