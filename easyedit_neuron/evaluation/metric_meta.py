"""EasyEdit's ``metric_meta``: the protocol and scorer of a number, so that unlike numbers are never averaged.

Only the entries of decoder-only models under token metrics and perplexity are needed here.
"""


def lm_meta(section: str, eval_metric: str = "token_em") -> dict:
    """Entry of ``rewrite`` or ``rephrase``."""
    if eval_metric == "ppl":
        parts = f"{section}_ppl", "teacher_forcing_ppl", "perplexity", "lm.teacher_forcing.perplexity"
    elif eval_metric == "ood_ppl":
        scorer = "thresholded_token_ratio"
        parts = "ood_acc", "ood_ppl_threshold", scorer, f"lm.ood_ppl.{scorer}"
    else:
        protocol, scorer = "decoder_only_teacher_forcing", "token_accuracy"
        parts = f"{section}_acc", protocol, scorer, f"lm.{protocol}.{scorer}"
    return _entry(*parts)


def locality_meta(kind: str) -> dict:
    """Entry of one locality kind."""
    protocol, scorer = "pre_post_argmax_token_match", "token_match"
    return _entry(f"locality.{kind}_acc", protocol, scorer, f"locality.lm.{protocol}")


def _entry(result_key: str, protocol: str, scorer: str, group: str) -> dict:
    return {"result_key": result_key, "protocol": protocol, "scorer": scorer, "comparable_group": group}
