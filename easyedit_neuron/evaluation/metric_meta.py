"""EasyEdit's ``metric_meta``: which protocol and scorer made a number, so that unlike numbers are never
averaged.

Only the entries of decoder-only models under token metrics are made here; what the built-in host refuses (LLM
judge, free generation) has none.
"""

_TEACHER_FORCED = (
    "{section}_acc",
    "decoder_only_teacher_forcing",
    "token_accuracy",
    "lm.decoder_only_teacher_forcing.token_accuracy",
)
_BY_METRIC = {
    "ppl": ("{section}_ppl", "teacher_forcing_ppl", "perplexity", "lm.teacher_forcing.perplexity"),
    "ood_ppl": (
        "ood_acc",
        "ood_ppl_threshold",
        "thresholded_token_ratio",
        "lm.ood_ppl.thresholded_token_ratio",
    ),
}
_LOCALITY = (
    "locality.{section}_acc",
    "pre_post_argmax_token_match",
    "token_match",
    "locality.lm.pre_post_argmax_token_match",
)


def _entry(parts, section: str) -> dict:
    key, protocol, scorer, group = parts
    return {
        "result_key": key.format(section=section),
        "protocol": protocol,
        "scorer": scorer,
        "comparable_group": group,
    }


def lm_meta(section: str, eval_metric: str = "token_em") -> dict:
    """Entry of ``rewrite`` or ``rephrase``."""
    return _entry(_BY_METRIC.get(eval_metric, _TEACHER_FORCED), section)


def locality_meta(key: str) -> dict:
    """Entry of one locality kind."""
    return _entry(_LOCALITY, key)
