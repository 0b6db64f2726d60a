"""Context templates: short sentences that the model writes, put before the prompt."""

import unicodedata

import torch

from ..arch.chat import plain_tokenizer
from ..arch.tokens import token_ids
from .easyedit_quirks import generated_contexts

ENGLISH_OPENERS = ("The", "Therefore", "Because", "I", "You")


def contexts_of(model, tok, hparams) -> list[list[str]]:
    """Context templates as the hyperparameters (``PathHyperParams``) say; never written in a chat."""
    tok = plain_tokenizer(tok)
    openers, length, seed = hparams.context_prompts, hparams.context_length, hparams.seed
    templates, length_params = hparams.context_templates, hparams.context_template_length_params
    if hparams.has_quirk("generated_contexts") and not templates and length:
        return generated_contexts(model, tok, openers or ENGLISH_OPENERS, length, seed)
    return context_templates(model, tok, openers, length, seed, templates, length_params)


def context_templates(
    model, tok, openers=None, length: int = 10, seed: int = 0, templates=None, length_params=None
) -> list[list[str]]:
    """EasyEdit's two groups ``[["{}"], [sentence + ". {}", ...]]``, of equal weight in a key (not in ROME's).

    Args:
        model, tok: the model continues each opener by top-5 sampling.
        openers: beginnings, one sentence each; ``""`` is BOS alone; None: EasyEdit's five English words.
        length: longest sentence in tokens, opener included; 0: no sentences.
        seed: seed of the sampling; the global random state does not change.
        templates: templates to use instead, each with one ``{}``.
        length_params: instead of ``length``: pairs (length, number of sentences). Each opener gives ``number
            // openers`` of them, and at least one.

    Returns:
        List of groups of templates.
    """
    if templates:  # the bare prompt is there anyway, and counts once
        groups = [["{}"], [template for template in templates if template != "{}"]]
        return [group for group in groups if group]
    openers = ENGLISH_OPENERS if openers is None else openers
    rounds = [(length, 1)]
    if length_params is not None:
        rounds = [(longest, max(1, number // max(1, len(openers)))) for longest, number in length_params]
    generator = torch.Generator().manual_seed(seed)
    sentences = [
        _sentence(model, tok, opener, longest, generator)
        for longest, per_opener in rounds
        if longest
        for opener in openers
        for _ in range(per_opener)
    ]
    # An empty sentence, of a model that ends its text at once, is no context.
    groups = [["{}"], [sentence + ". {}" for sentence in sentences if sentence]]
    return [group for group in groups if group]


@torch.no_grad()
def _sentence(model, tok, opener: str, length: int, generator) -> str:
    """One sentence, cut at its first full stop. Without a cache it is the same on every architecture."""
    bos = tok.bos_token_id if tok.bos_token_id is not None else tok.eos_token_id
    ids = token_ids(tok, opener) if opener else [bos]
    device = model.get_input_embeddings().weight.device
    while len(ids) < length:
        logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, -1].float().cpu()
        top = logits.topk(min(5, logits.numel()))
        token = int(top.indices[torch.multinomial(top.values.softmax(-1), 1, generator=generator)])
        if token == tok.eos_token_id:
            break
        ids = ids + [token]
    text = unicodedata.normalize("NFKD", tok.decode(ids, skip_special_tokens=True))
    for brace in "{}\n":
        text = text.replace(brace, " ")
    return text.strip().split(". ")[0].rstrip(". ")
