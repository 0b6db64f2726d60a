"""Deliberate differences from EasyEdit; each has a name in ``easyedit_quirks`` that restores its behaviour.

- ``retokenised_target``: EasyEdit tokenises the new object alone, decodes all but its last token, and
  tokenises that text again behind the prompt. Labels are shifted if the text does not survive this (a
  character cut in two, a merge with the prompt). Here the object's token ids are appended, as they follow a
  word.
- ``no_softcap``: EasyEdit leaves the soft capping of the logits (gemma2) out of the loss of z*.
- ``stale_keys``: EasyEdit leaves the keys of an edit in C_p after its weights have been put back. An edit
  that is made and undone three times then gives three different deltas. Here its keys are removed.
- ``generated_contexts``: EasyEdit writes the context sentences in one padded batch. From the second token on
  the attention mask has one column; for Llama there is none, so that padding is attended to. The texts are
  not cut. Here each opener is continued alone, and the first sentence is taken.

One difference is not reproduced, because it is a bug: with a tokenizer that pads on the left, EasyEdit
counts the subject's position from the padding. For the methods and models that it knows it pads on the right.
"""

import unicodedata

import torch

from ..errors import HparamsError

TOP_K = 5


@torch.no_grad()
def generated_contexts(model, tok, openers, length: int, seed: int) -> list[list[str]]:
    """EasyEdit's context groups, from the random numbers that follow ``torch.manual_seed(seed)`` on the CPU.

    Args:
        model, tok: the tokenizer pads the openers and must have a pad token.
        openers: one sentence each.
        length: tokens of each row, opener included.
        seed: seed of the sampling; the global random state does not change.

    Returns:
        ``[["{}"], [text + ". {}", ...]]``.
    """
    if tok.pad_token_id is None:
        raise HparamsError(
            "field 'easyedit_quirks': generated_contexts pads the openers, but the tokenizer has no pad "
            "token; set tokenizer.pad_token"
        )
    batch = tok(list(openers), padding=True, return_tensors="pt")
    device = model.get_input_embeddings().weight.device
    ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    generator = torch.Generator().manual_seed(seed)
    # Start with the tokens that all openers have.
    start, stop, past = 0, int(mask.sum(1).min()), None
    while ids.shape[1] < length:
        out = model(
            input_ids=ids[:, start:stop],
            attention_mask=None if model.config.model_type == "llama" else mask[:, start:stop],
            past_key_values=past,
            use_cache=True,
        )
        past = out.past_key_values
        top = out.logits[:, -1].softmax(-1).topk(TOP_K)
        probabilities = (top.values / top.values.sum(1, keepdim=True)).float().cpu()
        drawn = torch.multinomial(probabilities, 1, generator=generator).to(device)
        if stop == ids.shape[1]:
            ids = torch.cat([ids, torch.full_like(ids[:, :1], tok.pad_token_id)], 1)
            mask = torch.cat([mask, torch.zeros_like(mask[:, :1])], 1)
        for row in range(len(ids)):
            # A row with a longer opener gets its first new token when the others have reached its length.
            if int(mask[row].sum()) == stop and stop < length:
                ids[row, stop], mask[row, stop] = top.indices[row, drawn[row, 0]], 1
        start, stop = stop, stop + 1
    texts = [unicodedata.normalize("NFKD", tok.decode(row, skip_special_tokens=True)) for row in ids.tolist()]
    plain = [
        text.replace("\n\n", " ").replace("<|endoftext|>", "").replace("{", " ").replace("}", " ")
        for text in texts
    ]
    return [["{}"], [text + ". {}" for text in plain]]
