"""EasyEdit's metrics of a request, with EasyEdit's keys and numbers (``compute_edit_quality``)."""

from collections.abc import Sequence

import torch

from ..arch.chat import prompt_tokenizer
from ..arch.tokens import text_ids
from ..errors import HparamsError
from ..hyperparameters.base import HyperParams
from .batched import Prediction, predict_targets
from .batching import evaluating, input_device, right_pad, tokenize_pairs
from .fluency import generation_entropy
from .sections import Section, sections

FLUENCY_TOKENS = 100
"""Tokens of prompt and generated text together, as EasyEdit measures fluency."""


def check_evaluation_type(hparams) -> None:
    """Refuse EasyEdit's ways of evaluation that need an API or a chat model, before anything is computed."""
    evaluation_type = getattr(hparams, "evaluation_type", None)
    if evaluation_type in ("LLM-judge", "generate-text"):
        raise HparamsError(
            f"field 'evaluation_type': the built-in evaluation does not offer {evaluation_type!r}; "
            "leave it out for token accuracy, or use EasyEdit's BaseEditor (host='easyedit')"
        )


def predict_sections(
    model,
    tok,
    measured: Sequence[Section],
    hparams=None,
    batch_size: int = 64,
    locality_in_chat: bool = False,
) -> list[list[Prediction]]:
    """Teacher-forced predictions of each section, all in shared forward passes.

    ``use_chat_template`` of ``hparams`` makes each prompt the user's turn of the tokenizer's chat
    template, except in locality sections, as in EasyEdit: those are compared with the model's own earlier
    answers. ``locality_in_chat`` puts them there too. With hyperparameters of EasyEdit's own methods the
    tokens are EasyEdit's: a blank before the answer, and the tokenizer's special tokens in front of the
    template's.
    """
    prompt_tok = prompt_tokenizer_of(tok, hparams)
    as_easyedit = prompt_tok is tok and getattr(hparams, "use_chat_template", False)
    results: list[list[Prediction]] = [[] for _ in measured]
    for asked in (tok,) if prompt_tok is tok else (tok, prompt_tok):
        prompts: list[str] = []
        targets: list[str] = []
        part = []
        for i, section in enumerate(measured):
            is_plain = section.name == "locality" and not locality_in_chat
            if (tok if is_plain else prompt_tok) is asked:
                part.append(i)
                prompts += _turns(tok, section.prompts) if as_easyedit and not is_plain else section.prompts
                targets += section.answers
        sizes = [len(measured[i].prompts) for i in part]
        predictions = iter(predict_targets(model, asked, prompts, targets, batch_size, group_sizes=sizes))
        for i, size in zip(part, sizes):
            results[i] = [next(predictions) for _ in range(size)]
    return results


def _turns(tok, prompts: Sequence[str]) -> list[str]:
    """Each prompt as the user's turn of a chat."""
    return [
        tok.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]


def prompt_tokenizer_of(tok, hparams):
    """The tokenizer for the prompts of edits by our methods; the plain one for hyperparameters of others."""
    return prompt_tokenizer(tok, hparams) if isinstance(hparams, HyperParams) else tok


def measure(
    model,
    tok,
    requests: Sequence[dict],
    hparams=None,
    eval_metric: str = "token_em",
    batch_size: int = 64,
    locality_in_chat: bool = False,
) -> list[dict]:
    """The metrics of every request but for fluency, in shared batches; see ``compute_edit_quality``."""
    check_evaluation_type(hparams)
    measured = sections(requests)
    results: list[dict] = [{"locality": {}, "portability": {}} for _ in requests]
    by_perplexity = eval_metric in ("ppl", "ood_ppl")
    forced = [section for section in measured if not (by_perplexity and section.is_rewrite)]
    predictions = iter(predict_sections(model, tok, forced, hparams, batch_size, locality_in_chat))
    for section in measured:
        name, result = section.name, results[section.index]
        if name == "locality":
            result[name][f"{section.kind}_output"] = [p.predicted for p in next(predictions)]
        elif name == "portability":
            result[name][f"{section.kind}_acc"] = _accuracies(next(predictions))
        else:
            if eval_metric == "ppl":
                asked = prompt_tokenizer_of(tok, hparams)
                result[f"{name}_ppl"] = _target_perplexity(model, asked, section)
            elif eval_metric == "ood_ppl":
                result["ood_acc"] = _confident_share(model, tok, section)
            else:
                result[f"{name}_acc"] = _accuracies(next(predictions))
            result.setdefault("metric_meta", {})[name] = lm_meta(name, eval_metric)
    return results


def compute_edit_quality(
    model,
    model_name,
    hparams,
    tok,
    record: dict,
    device=None,
    eval_metric: str = "token_em",
    test_generation: bool = False,
) -> dict:
    """What EasyEdit's function of the same name returns for one request.

    Keys: ``rewrite_acc`` (list of float), ``rephrase_acc`` when the request has a rephrasing, ``locality``
    ({``<kind>_output``: list of lists of token ids}), ``portability`` ({``<kind>_acc``: list of float}),
    ``metric_meta``, and ``fluency`` ({"ngram_entropy": bits}) with ``test_generation``, whose text is sampled
    (top-k 5, torch's global generator). ``eval_metric`` "ppl" gives ``rewrite_ppl`` and ``rephrase_ppl``,
    "ood_ppl" gives ``ood_acc``; anything else token accuracy.

    All prompts share one forward pass. ``model_name`` and ``device`` are EasyEdit's arguments and not needed:
    inputs go where the embeddings are, and the model's kind never follows from its name. Two things are not
    EasyEdit's: one answer to a list of rephrasings goes with each (EasyEdit pairs them with its characters),
    and several prompts under "ppl" are masked where they are padded.

    Raises:
        RequestError: a field of the request is missing or malformed.
        HparamsError: ``evaluation_type`` asks for an LLM judge or free generation.
    """
    (result,) = measure(model, tok, [record], hparams, eval_metric)
    if test_generation:
        prompts = sections([record])[0].prompts
        result["fluency"] = {"ngram_entropy": generation_entropy(model, tok, prompts, FLUENCY_TOKENS)}
    return result


def _accuracies(predictions: Sequence[Prediction]) -> list[float]:
    # EasyEdit leaves out prompts without target tokens, but for a single prompt.
    values = [prediction.accuracy for prediction in predictions]
    return values if len(values) == 1 else [value for value in values if value == value]


def _target_perplexity(model, tok, section: Section) -> float:
    """``exp`` of the mean negative log-likelihood of the target tokens (EasyEdit's PPL)."""
    pairs = tokenize_pairs(tok, section.prompts, section.answers)
    logs = _log_probabilities(model, [pair.ids for pair in pairs])
    return float(torch.exp(-torch.cat([row[pair.start - 1 :] for row, pair in zip(logs, pairs)]).mean()))


def _confident_share(model, tok, section: Section) -> float:
    """Share of the prompts' tokens with a probability above 0.8 (EasyEdit's OOD_PPL)."""
    logs = torch.cat(_log_probabilities(model, text_ids(tok, section.prompts)))
    return float((logs.exp() > 0.8).float().mean())


def _log_probabilities(model, rows: Sequence[list[int]]) -> list[torch.Tensor]:
    """Of each row, the log-probability of every token but the first (float32)."""
    inputs = right_pad(rows, input_device(model))
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with evaluating(model):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    logs = logits[:, :-1].float().log_softmax(-1)
    logs = logs.gather(-1, ids[:, 1:, None].to(logs.device))[..., 0]
    return [line[: len(row) - 1] for line, row in zip(logs, rows)]


def lm_meta(section: str, eval_metric: str = "token_em") -> dict:
    """EasyEdit's ``metric_meta``: protocol and scorer, so that unlike numbers are never averaged."""
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
