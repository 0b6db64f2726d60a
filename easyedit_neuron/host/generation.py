"""Free answers to a request's prompts, for ``generate_edit``."""

import torch

from ..arch.tokens import token_ids
from ..evaluation.batching import evaluating, input_device
from ..evaluation.sections import sections

SYSTEM_PROMPT = "You are a helpful assistant."


def generate_answer(model, tok, query: str, max_new_tokens: int) -> str:
    """The model's answer to a query, decoded as its generation config says.

    The query goes through the tokenizer's chat template as in EasyEdit; where there is none (EasyEdit fails
    then), the model continues the bare text.
    """
    text = query
    if tok.chat_template is not None:
        messages = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": query}]
        text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # A template has the special tokens itself.
    has_own = text is not query and text.startswith(tok.bos_token or "\0")
    ids = torch.tensor([token_ids(tok, text, special=not has_own)], device=input_device(model))
    with evaluating(model):
        pad = tok.eos_token_id if tok.pad_token_id is None else tok.pad_token_id
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        generated = model.generate(**inputs, max_new_tokens=max_new_tokens, pad_token_id=pad)
    return tok.decode(generated[0, ids.shape[1] :], skip_special_tokens=True)


answer = generate_answer
"""The earlier name, for scripts that import it."""


def generate_answers(model, tok, request: dict, max_new_tokens: int = 512) -> dict:
    """``rewrite_ans``, ``rephrase_ans`` (texts), ``locality_ans`` and ``portability_ans`` (lists of texts),
    where the request has prompts. EasyEdit needs the kinds ``por_hop`` and ``loc_hop``; here every kind is
    answered."""
    answers: dict = {}
    for section in sections([request]):
        texts = [generate_answer(model, tok, prompt, max_new_tokens) for prompt in section.prompts]
        if section.is_rewrite:
            answers[f"{section.name}_ans"] = texts[0] if len(texts) == 1 else texts
        else:
            answers.setdefault(f"{section.name}_ans", []).extend(texts)
    return answers
