"""Where we deliberately do not as EasyEdit does, and the names that bring its behaviour back
(``easyedit_quirks``).

- ``retokenised_target``: the new object is tokenised alone, all but its last token is decoded, and that text
  is tokenised again behind the prompt. Objects whose text does not survive that (a character cut in two, a
  merge with the prompt) get shifted labels. Here the object's token ids, as they follow a word, are appended.
- ``no_softcap``: the loss of z* leaves out the soft capping of the logits (gemma2).
- ``stale_keys``: the keys of an edit stay in C_p although its weights have been put back, so that the same
  edit made and undone three times gives three different deltas. Here keys go when the weights go.
- ``generated_contexts``: the context sentences are written by a loop that, from the second token on, passes
  an attention mask of one column (or, for Llama, none at all, so that padding is attended to), in one batch
  padded as the tokenizer pads, and are cut nowhere. Here each opener is continued alone, and the first
  sentence kept.

One thing has no name, because it cannot be wanted: with a tokenizer that pads on the left, EasyEdit's lookup
of the subject counts from the padding. It sets right padding itself for the methods and models that it knows.
"""

import unicodedata

import torch

from ..errors import HparamsError

TOP_K = 5


@torch.no_grad()
def generated_contexts(model, tok, openers, length: int, seed: int) -> list[list[str]]:
    """EasyEdit's context groups, from the random numbers that follow ``torch.manual_seed(seed)`` on the CPU.

    Args:
        model, tok: the tokenizer pads the openers; it must have a pad token.
        openers: one sentence each.
        length: tokens of each row, opener included.
        seed: of the sampling; the global random state is left alone.

    Returns:
        ``[["{}"], [text + ". {}", ...]]``.
    """
    if tok.pad_token_id is None:
        raise HparamsError(
            "field 'easyedit_quirks': generated_contexts pads the openers, and the tokenizer has no pad token; set one"
        )
    batch = tok(list(openers), padding=True, return_tensors="pt")
    device = model.get_input_embeddings().weight.device
    ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
    generator = torch.Generator().manual_seed(seed)
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
        drawn = torch.multinomial(
            (top.values / top.values.sum(1, keepdim=True)).float().cpu(), 1, generator=generator
        ).to(device)
        if stop == ids.shape[1]:
            ids = torch.cat([ids, torch.full_like(ids[:, :1], tok.pad_token_id)], 1)
            mask = torch.cat([mask, torch.zeros_like(mask[:, :1])], 1)
        for row in range(len(ids)):
            # a row whose opener is longer than the shortest waits until the others have caught up
            if int(mask[row].sum()) == stop and stop < length:
                ids[row, stop], mask[row, stop] = top.indices[row, drawn[row, 0]], 1
        start, stop = stop, stop + 1
    texts = [unicodedata.normalize("NFKD", tok.decode(row, skip_special_tokens=True)) for row in ids.tolist()]
    plain = [
        text.replace("\n\n", " ").replace("<|endoftext|>", "").replace("{", " ").replace("}", " ")
        for text in texts
    ]
    return [["{}"], [text + ". {}" for text in plain]]
