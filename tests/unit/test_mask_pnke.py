"""PNKE's critical neurons: numbers worked out by hand, the algorithms written out with lists, and degenerate
scores."""

import math

import pytest
import torch

from easyedit_neuron import MEMITHyperParams
from easyedit_neuron.errors import HparamsError, MaskError
from easyedit_neuron.masks import chosen_mask, get_mask
from easyedit_neuron.models.pnke import pnke_mask as module
from easyedit_neuron.models.pnke.pnke_mask import (
    CausalScores,
    background_neurons,
    entropy_percentile,
    importance,
    score_entropy,
    threshold,
    trigger_neurons,
)
from easyedit_neuron.models.pnke.pnke_options import PNKEOptions

F64 = torch.float64
# means 4, 5, 1, 2, 3; standard deviations 0.816, 0, 0.816, 1.633, 1.633
SEMANTIC = torch.tensor([[3, 5, 0, 0, 1], [4, 5, 1, 2, 3], [5, 5, 2, 4, 5]], dtype=F64)
SPECIFIC = torch.tensor([10, 1, 2, 9, 0], dtype=F64)
ATTRIBUTION = torch.tensor([0.5, 0, 0, 0.4, -1], dtype=F64)
ONE = CausalScores(SPECIFIC, SEMANTIC, ATTRIBUTION)
WIDE = dict(
    trigger_activation=50, trigger_attribution=50
)  # N_trig = {0, 3}; with N_bg = {1} N_causal = {0, 1, 3}


def pnke_mask(scores, **options):
    return module.pnke_mask(scores, PNKEOptions(**options), 0)


def numbers(mask):
    return mask.nonzero().flatten().tolist()


def test_background_neurons_by_hand():
    # 75th percentile of the means: 4; 25th of the deviations: 0.816, which neurons 0 and 2 have and only 1 is
    # below
    assert numbers(background_neurons(SEMANTIC)) == [1]
    # 50th percentiles: 3 and 0.816
    assert numbers(background_neurons(SEMANTIC, 50, 50)) == [1]
    assert numbers(background_neurons(SEMANTIC, 0, 75)) == [0, 1]  # mean > 1, deviation < 1.633


def test_trigger_neurons_by_hand():
    # 90th percentiles at position 3.6 of 0..4: 9.6 and 0.46
    assert threshold(SPECIFIC, 90) == pytest.approx(9.6) and threshold(ATTRIBUTION, 90) == pytest.approx(0.46)
    assert numbers(trigger_neurons(SPECIFIC, ATTRIBUTION)) == [0]
    assert numbers(trigger_neurons(SPECIFIC, ATTRIBUTION, 50, 50)) == [0, 3]


def test_thresholds_as_parts_of_the_range():
    assert threshold(SPECIFIC, 25, "range") == 2.5 and threshold(ATTRIBUTION, 40, "range") == pytest.approx(
        -0.4
    )
    assert numbers(trigger_neurons(SPECIFIC, ATTRIBUTION, 25, 25, "range")) == [0, 3]
    # means above 1 + 0.75 * 4 = 4, deviations below 0.25 * 1.633
    assert numbers(background_neurons(SEMANTIC, 75, 25, "range")) == [1]


def test_importance_entropy_and_percentile_by_hand():
    scores = importance(SPECIFIC[[0, 1, 3]], ATTRIBUTION[[0, 1, 3]], 0.5)
    assert scores.tolist() == pytest.approx([1, 0, (8 / 9 + 0.8) / 2])
    p = 1 / (1 + 0.8444444)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert score_entropy(scores) == pytest.approx(entropy)
    q = entropy_percentile(entropy, 3)
    assert q == pytest.approx(85 + 10 * (math.log(3) - entropy)) == pytest.approx(89.0902, abs=1e-3)
    result = pnke_mask([ONE], **WIDE)
    (counts,) = result.info["requests"]
    # position 0.890902 * 2 of the sorted scores
    assert counts["threshold"] == pytest.approx(0.8444444 + 0.781804 * (1 - 0.8444444), abs=1e-5)
    assert numbers(result.mask) == [0] and result.density == 0.2
    assert {name: counts[name] for name in ("background", "trigger", "overlap", "causal", "critical")} == {
        "background": 1,
        "trigger": 2,
        "overlap": 0,
        "causal": 3,
        "critical": 1,
    }
    assert counts["entropy"] == pytest.approx(entropy) and "filled_up" not in counts


@pytest.mark.parametrize("alpha, second", [(1.0, 8 / 9), (0.0, 0.8), (0.25, 0.25 * 8 / 9 + 0.75 * 0.8)])
def test_alpha_weighs_activation_against_attribution(alpha, second):
    assert importance(SPECIFIC[[0, 1, 3]], ATTRIBUTION[[0, 1, 3]], alpha).tolist() == pytest.approx(
        [1, 0, second]
    )


def test_a_lower_percentile_takes_more_and_the_percentile_is_cut_to_a_hundred():
    assert numbers(pnke_mask([ONE], **WIDE, q_base=10, gamma=0).mask) == [0, 3]
    assert (
        entropy_percentile(0.0, 1000, 85, 10) == 100.0 and entropy_percentile(math.log(7), 7, 85, 10) == 85.0
    )
    # at 100 nobody is above the threshold
    result = pnke_mask([ONE], **WIDE, gamma=100)
    assert numbers(result.mask) == [0] and result.info["requests"][0]["filled_up"] == 1


@pytest.mark.parametrize(
    "strategy, options, expected",
    [
        ("trigger", {}, [0]),
        ("trigger", WIDE, [0, 3]),
        ("background", {}, [1]),
        ("activation", {"activation_share": 0.4}, [0, 3]),
        ("activation", {"activation_share": 0.01}, [0]),
    ],
)
def test_strategies_of_figure_3(strategy, options, expected):
    assert numbers(pnke_mask([ONE], strategy=strategy, **options).mask) == expected


def _percentile(values, q):
    values = sorted(values)
    at = q / 100 * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def _algorithms(request_scores, strategy, bg_act, bg_std, trig_act, trig_attr, alpha, q_base, gamma):
    """Algorithms 2 to 4 neuron by neuron, in lists of floats."""
    act, attr, n = (
        request_scores.specific.tolist(),
        request_scores.attribution.tolist(),
        len(request_scores.specific),
    )
    columns = request_scores.semantic.T.tolist()
    mean = [sum(c) / len(c) for c in columns]
    std = [math.sqrt(sum((x - m) ** 2 for x in c) / len(c)) for c, m in zip(columns, mean)]
    background = [
        i for i in range(n) if mean[i] > _percentile(mean, bg_act) and std[i] < _percentile(std, bg_std)
    ]
    trigger = [
        i for i in range(n) if act[i] > _percentile(act, trig_act) and attr[i] > _percentile(attr, trig_attr)
    ]
    if strategy != "entropy":
        return background if strategy == "background" else trigger
    causal = sorted({*background, *trigger})

    def norm(values, i):
        inside = [values[j] for j in causal]
        return (values[i] - min(inside)) / (max(inside) - min(inside))

    s = {i: alpha * norm(act, i) + (1 - alpha) * norm(attr, i) for i in causal}
    p = [value / sum(s.values()) for value in s.values()]
    entropy = -sum(x * math.log(x) for x in p if x > 0)
    q = min(100, max(0, q_base + gamma * (math.log(len(causal)) - entropy)))
    tau = _percentile(list(s.values()), q)
    return [i for i in causal if s[i] > tau]


@pytest.mark.parametrize("strategy", ["entropy", "trigger", "background"])
@pytest.mark.parametrize("levels", [(75, 25, 90, 90), (60, 60, 70, 55)])
@pytest.mark.parametrize("alpha, q_base, gamma", [(0.5, 85, 10), (0.2, 40, 25)])
def test_the_algorithms_written_out(strategy, levels, alpha, q_base, gamma):
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        request_scores = CausalScores(
            *(torch.randn(*shape, generator=draw, dtype=F64) for shape in ((200,), (10, 200), (200,)))
        )
        names = ("background_activation", "background_std", "trigger_activation", "trigger_attribution")
        result = pnke_mask(
            [request_scores],
            strategy=strategy,
            alpha=alpha,
            q_base=q_base,
            gamma=gamma,
            **dict(zip(names, levels)),
        )
        expected = _algorithms(request_scores, strategy, *levels, alpha, q_base, gamma)
        assert expected and numbers(result.mask) == expected


def test_every_request_selects_for_itself_and_the_mask_is_the_union():
    other = CausalScores(SPECIFIC.flip(0), SEMANTIC.flip(1), ATTRIBUTION.flip(0))
    result = pnke_mask([ONE, other], **WIDE)
    assert numbers(result.mask) == [0, 4]
    assert [counts["critical"] for counts in result.info["requests"]] == [1, 1] and result.to_json()[
        "requests"
    ] == result.info["requests"]


# ---- degenerate scores
# ------------------------------------------------------------------------------------------------


def test_equal_scores_select_the_first_neurons(caplog):
    flat = CausalScores(torch.ones(6), torch.ones(3, 6), torch.zeros(6))
    for strategy in ("entropy", "trigger", "background"):
        result = pnke_mask([flat], strategy=strategy, min_neurons=2)
        assert numbers(result.mask) == [0, 1] and result.info["requests"][0]["filled_up"] == 2
    assert result.info["requests"][0]["critical"] == 2 and "filled up" in caplog.text
    # causal neurons whose scores are all equal: s is 1 each, H is log n, q is q_base, and nobody is above it
    assert importance(torch.ones(3), torch.ones(3)).tolist() == [1, 1, 1]


def test_without_a_causal_neuron_the_best_of_the_layer_are_taken():
    none = CausalScores(torch.tensor([1.0, 2, 3, 4]), torch.zeros(2, 4), torch.tensor([4.0, 3, 2, 1]))
    result = pnke_mask([none], alpha=0.9, min_neurons=2, trigger_activation=100)
    counts = {"background": 0, "trigger": 0, "overlap": 0, "causal": 0, "filled_up": 2, "critical": 2}
    assert result.info["requests"] == [counts]
    assert numbers(result.mask) == [2, 3]


def test_one_causal_neuron_is_critical():
    result = pnke_mask([CausalScores(SPECIFIC, SEMANTIC[:1], ATTRIBUTION)])
    assert numbers(result.mask) == [0] and result.info["requests"][0]["entropy"] == 0


def test_missing_neurons_come_from_the_causal_ones_first():
    # critical {0}; of the causal ones 3 has the higher s, then 1; neuron 2 has more activation than 1 but is
    # not causal
    assert numbers(pnke_mask([ONE], **WIDE, min_neurons=2).mask) == [0, 3]
    assert numbers(pnke_mask([ONE], **WIDE, min_neurons=3).mask) == [0, 1, 3]
    assert numbers(pnke_mask([ONE], **WIDE, min_neurons=4).mask) == [0, 1, 2, 3]


@pytest.mark.parametrize("semantic", [SEMANTIC[:1], SEMANTIC[:0]])
def test_one_prompt_or_none_has_no_background_neurons(semantic):
    assert not background_neurons(semantic).any()
    assert numbers(pnke_mask([CausalScores(SPECIFIC, semantic, ATTRIBUTION)], **WIDE).mask) == [0]


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(strategy="entropie"), "did you mean 'entropy'"),
        (dict(thresholds="value"), "'thresholds'"),
        (dict(alpha=1.5), "'alpha'"),
        (dict(q_base=101), "'q_base'"),
        (dict(trigger_activation=-1), "'trigger_activation'"),
        (dict(gamma=-1.0), "'gamma'"),
        (dict(min_neurons=0), "'min_neurons'"),
        (dict(activation_share=0.0), "'activation_share'"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(HparamsError, match=words):
        PNKEOptions(**options)


@pytest.mark.parametrize(
    "scores, words",
    [
        (torch.zeros(2, 5), "expected CausalScores"),
        ([], "expected CausalScores"),
        ([CausalScores(torch.full((5,), float("nan")), SEMANTIC, ATTRIBUTION)], "not finite"),
        ([CausalScores(SPECIFIC, None, ATTRIBUTION)], "needs semantic"),
        ([CausalScores(SPECIFIC, SEMANTIC)], "needs attribution"),
    ],
)
def test_bad_scores(scores, words):
    with pytest.raises(MaskError, match=words):
        pnke_mask(scores)


def test_more_neurons_than_the_layer_has():
    with pytest.raises(MaskError, match="min_neurons: the layer has 5 neurons, got 6"):
        pnke_mask([ONE], min_neurons=6)


def test_the_mask_and_its_scores_belong_together():
    def memit(mask, **options):
        fields = {"alg_name": "MEMIT", "model_name": "in memory", "layers": [1]}
        return MEMITHyperParams(**fields, mask=mask, mask_options=options)

    assert get_mask("pnke") is module.pnke_mask and chosen_mask(memit("pnke")).scores.name == "pnke"
    for name, kind in (("pnke", "ig"), ("activation", "pnke")):
        with pytest.raises(HparamsError, match="is made from scores"):
            memit(name, attribution=kind)
