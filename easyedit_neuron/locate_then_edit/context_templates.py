"""Context templates: short sentences that the model writes itself, put in front of the prompt."""

import unicodedata

import torch

ENGLISH_OPENERS = ("The", "Therefore", "Because", "I", "You")


def context_templates(
    model, tok, openers=None, length: int = 10, seed: int = 0, given=None, length_params=None
) -> list[list[str]]:
    """``[["{}"], [sentence + ". {}", ...]]``: EasyEdit's two groups, each of which has equal weight in a key
    (but not in ROME's).

    Args:
        model, tok: the model writes from each opener by top-5 sampling.
        openers: openers, one sentence each; ``""`` lets the model start after BOS; None: EasyEdit's five
            English words.
        length: longest sentence in tokens, opener included; 0: no sentences.
        seed: seed of the sampling; the global random state is left alone.
        given: templates to use instead, each with one ``{}``.
        length_params: in place of ``length``: pairs (length, number of sentences); ``number // openers`` of
            them from each opener, and at least one.

    Returns:
        List of groups of templates.
    """
    if given:
        return [["{}"], list(given)]
    openers = ENGLISH_OPENERS if openers is None else openers
    share = max(1, len(openers))
    rounds = (
        [(length, 1)]
        if length_params is None
        else [(longest, max(1, n // share)) for longest, n in length_params]
    )
    generator = torch.Generator().manual_seed(seed)
    sentences = [
        _sentence(model, tok, opener, longest, generator)
        for longest, each in rounds
        if longest
        for opener in openers
        for _ in range(each)
    ]
    # a model may end its text at once: nothing is no context
    groups = [["{}"], [sentence + ". {}" for sentence in sentences if sentence]]
    return [group for group in groups if group]


def contexts_of(model, tok, hparams) -> list[list[str]]:
    """``context_templates`` as the hyperparameters (``PathHyperParams``) say."""
    if hparams.has_quirk("generated_contexts") and not hparams.context_templates and hparams.context_length:
        from .easyedit_quirks import generated_contexts

        return generated_contexts(
            model, tok, hparams.context_prompts or ENGLISH_OPENERS, hparams.context_length, hparams.seed
        )
    return context_templates(
        model,
        tok,
        hparams.context_prompts,
        hparams.context_length,
        hparams.seed,
        hparams.context_templates,
        hparams.context_template_length_params,
    )


@torch.no_grad()
def _sentence(model, tok, opener: str, length: int, generator) -> str:
    """One sentence, cut at its first full stop. No cache: a few short forwards, the same on every
    architecture."""
    ids = (
        tok(opener)["input_ids"]
        if opener
        else [tok.bos_token_id if tok.bos_token_id is not None else tok.eos_token_id]
    )
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
