"""The metrics of one request, with EasyEdit's keys and numbers (``compute_edit_quality``)."""

from collections.abc import Sequence

import torch

from ..errors import HparamsError, RequestError
from .batched import Prediction, predict_targets
from .batching import evaluating, input_device, right_pad, token_ids
from .fluency import generation_entropy
from .metric_meta import lm_meta

#: tokens of prompt and generated text together, as EasyEdit measures fluency
FLUENCY_TOKENS = 100


def as_pairs(prompt: str | Sequence[str], answer: str | Sequence[str], where: str) -> list[tuple[str, str]]:
    """Prompts with their answers. A single answer to several prompts goes with each of them.

    Raises:
        RequestError: ``where`` names the field whose lists differ in length or are not texts.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    answers = [answer] * len(prompts) if isinstance(answer, str) else list(answer)
    if len(prompts) != len(answers):
        raise RequestError(
            f"{where}: {len(prompts)} prompts but {len(answers)} answers; give one answer per prompt"
        )
    for text in prompts + answers:
        if not isinstance(text, str):
            raise RequestError(f"{where}: expected texts, found {text!r}")
    return list(zip(prompts, answers))


def sections(record: dict) -> list[tuple[tuple[str, ...], list[tuple[str, str]]]]:
    """Everything a request asks to be measured, as ``(path, pairs)``: path is ("rewrite",), ("rephrase",),
    ("locality", key) or ("portability", key), in EasyEdit's order; one entry is one batch of EasyEdit's.

    Raises:
        RequestError: names the missing or malformed field.
    """
    for name in ("prompt", "target_new"):
        if record.get(name) is None:
            raise RequestError(f"request has no {name!r}; the evaluation needs it")
    found = [(("rewrite",), as_pairs(record["prompt"], record["target_new"], "prompt"))]
    if record.get("rephrase_prompt") is not None:
        found.append(
            (("rephrase",), as_pairs(record["rephrase_prompt"], record["target_new"], "rephrase_prompt"))
        )
    for section in ("locality", "portability"):
        for key, value in (record.get(section) or {}).items():
            where = f"{section}.{key}"
            if (
                not isinstance(value, dict)
                or value.get("prompt") is None
                or value.get("ground_truth") is None
            ):
                raise RequestError(
                    f"{where} must be a dictionary with 'prompt' and 'ground_truth', found {value!r}"
                )
            pairs = as_pairs(value["prompt"], value["ground_truth"], where)
            if not pairs:
                raise RequestError(f"{where} has no prompts; leave the key out")
            found.append(((section, key), pairs))
    return found


def check_evaluation_type(hparams) -> None:
    """Refuse EasyEdit's ways of evaluation that need an API or a chat model, before anything is computed."""
    kind = getattr(hparams, "evaluation_type", None)
    if kind in ("LLM-judge", "generate-text"):
        raise HparamsError(
            f"evaluation_type: {kind!r} is not offered by the built-in evaluation; leave it out for token accuracy, "
            "or use EasyEdit's BaseEditor (host='easyedit')"
        )


def chat_prompts(tok, prompts: Sequence[str]) -> list[str]:
    """Each prompt as the user's turn of the tokenizer's chat template (``use_chat_template`` in the
    hyperparameters)."""
    return [
        tok.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]


def predict_sections(model, tok, found, hparams=None, batch_size: int = 64) -> list[list[Prediction]]:
    """Teacher-forced predictions of each entry of :func:`sections`, all in shared forward passes."""
    prompts, targets, sizes = [], [], []
    chat = bool(getattr(hparams, "use_chat_template", False))
    for path, pairs in found:
        texts = [prompt for prompt, _ in pairs]
        # EasyEdit leaves locality prompts as they are: they are compared with the model's own earlier answer
        prompts += chat_prompts(tok, texts) if chat and path[0] != "locality" else texts
        targets += [answer for _, answer in pairs]
        sizes.append(len(pairs))
    predictions = iter(predict_targets(model, tok, prompts, targets, batch_size, group_sizes=sizes))
    return [[next(predictions) for _ in range(size)] for size in sizes]


def accuracies(predictions: Sequence[Prediction]) -> list[float]:
    """Accuracies as EasyEdit lists them: of several prompts, those without target tokens are left out."""
    values = [prediction.accuracy for prediction in predictions]
    return values if len(values) == 1 else [value for value in values if value == value]


def fill(result: dict, path: tuple[str, ...], predictions: Sequence[Prediction]) -> None:
    """Put one section's predictions into an EasyEdit-shaped result."""
    if path[0] == "locality":
        result["locality"][f"{path[1]}_output"] = [list(p.predicted) for p in predictions]
    elif path[0] == "portability":
        result["portability"][f"{path[1]}_acc"] = accuracies(predictions)
    else:
        result[f"{path[0]}_acc"] = accuracies(predictions)
        result.setdefault("metric_meta", {})[path[0]] = lm_meta(path[0])


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
    check_evaluation_type(hparams)
    found = sections(record)
    result: dict = {"locality": {}, "portability": {}}
    by_perplexity = eval_metric in ("ppl", "ood_ppl")
    forced = [entry for entry in found if not (by_perplexity and entry[0][0] in ("rewrite", "rephrase"))]
    for (path, _), predictions in zip(forced, predict_sections(model, tok, forced, hparams)):
        fill(result, path, predictions)
    if by_perplexity:
        for path, pairs in found:
            if path[0] in ("rewrite", "rephrase"):
                key = f"{path[0]}_ppl" if eval_metric == "ppl" else "ood_acc"
                score = _target_perplexity if eval_metric == "ppl" else _confident_share
                result[key] = score(model, tok, pairs)
                result.setdefault("metric_meta", {})[path[0]] = lm_meta(path[0], eval_metric)
    if test_generation:
        prompts = [prompt for prompt, _ in found[0][1]]
        result["fluency"] = {"ngram_entropy": generation_entropy(model, tok, prompts, FLUENCY_TOKENS)}
    return result


def _log_probabilities(model, tok, texts: Sequence[str]) -> list[torch.Tensor]:
    """Of each text, the log-probability of every token but the first (float32)."""
    rows = token_ids(tok, texts)
    inputs = right_pad(rows, input_device(model))
    with evaluating(model):
        logits = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
        ).logits
    logs = logits[:, :-1].float().log_softmax(-1)
    logs = logs.gather(-1, inputs["input_ids"][:, 1:, None].to(logs.device))[..., 0]
    return [line[: len(row) - 1] for line, row in zip(logs, rows)]


def _target_perplexity(model, tok, pairs) -> float:
    """``exp`` of the mean negative log-likelihood of the target tokens (EasyEdit's PPL)."""
    starts = [len(ids) for ids in token_ids(tok, [prompt for prompt, _ in pairs])]
    logs = _log_probabilities(model, tok, [f"{prompt} {target}" for prompt, target in pairs])
    return float(torch.exp(-torch.cat([line[start - 1 :] for line, start in zip(logs, starts)]).mean()))


def _confident_share(model, tok, pairs, threshold: float = 0.8) -> float:
    """Share of the prompt's tokens that the model gives a probability above the threshold (EasyEdit's
    OOD_PPL)."""
    logs = torch.cat(_log_probabilities(model, tok, [prompt for prompt, _ in pairs]))
    return float((logs.exp() > threshold).float().mean())


def equal_share(
    before: Sequence[Sequence[int]], after: Sequence[Sequence[int]], key: str | None = None
) -> list[float]:
    """Of each prompt, the share of positions with the same token before and after (EasyEdit's locality).

    Raises:
        RequestError: the two do not answer the same prompts.
    """
    if len(before) != len(after):
        raise RequestError(f"locality.{key}: {len(before)} outputs before the edit but {len(after)} after it")
    shares = []
    for old, new in zip(before, after):
        if len(old) != len(new):
            raise RequestError(
                f"locality.{key}: an output has {len(old)} tokens before the edit and {len(new)} after it"
            )
        shares.append(sum(a == b for a, b in zip(old, new)) / len(old) if old else float("nan"))
    return shares
