"""Free answers to a request's prompts, for ``generate_edit``."""

import torch

from ..evaluation.batching import evaluating, input_device
from ..evaluation.quality import as_pairs

SYSTEM = "You are a helpful assistant."


def answer(model, tok, query: str, max_new_tokens: int) -> str:
    """The model's answer to a query: through the tokenizer's chat template as EasyEdit does, or to the bare
    text where the tokenizer has none (EasyEdit fails there). Decoding follows the model's generation
    config."""
    text = query
    if tok.chat_template is not None:
        text = tok.apply_chat_template(
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": query}],
            tokenize=False,
            add_generation_prompt=True,
        )
    ids = torch.tensor([tok(text)["input_ids"]], device=input_device(model))
    with evaluating(model):
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            pad_token_id=tok.eos_token_id if tok.pad_token_id is None else tok.pad_token_id,
        )
    return tok.decode(made[0, ids.shape[1] :], skip_special_tokens=True)


def answers(model, tok, request: dict, max_new_tokens: int = 512) -> dict:
    """``rewrite_ans``, ``rephrase_ans``, ``locality_ans`` and ``portability_ans`` of one request, each where
    the request has prompts.

    EasyEdit knows only the kinds ``por_hop`` and ``loc_hop`` and needs them; here every kind's prompts are
    answered in order.
    """
    result: dict = {"rewrite_ans": answer(model, tok, request["prompt"], max_new_tokens)}
    if request.get("rephrase_prompt") is not None:
        result["rephrase_ans"] = answer(model, tok, request["rephrase_prompt"], max_new_tokens)
    for section in ("locality", "portability"):
        prompts: list[str] = []
        for kind, value in (request.get(section) or {}).items():
            prompts += [
                prompt for prompt, _ in as_pairs(value["prompt"], value["ground_truth"], f"{section}.{kind}")
            ]
        if prompts:
            result[f"{section}_ans"] = [answer(model, tok, prompt, max_new_tokens) for prompt in prompts]
    return result
