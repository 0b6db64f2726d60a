"""A chat template for the tiny tokenizers, and what it makes of an edit, by transformers alone."""

import torch

CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)


def with_template(tok, template=CHAT):
    """The tokenizer, with a chat template."""
    tok.chat_template = template
    return tok


def asked_ids(tok, prompt):
    """Token ids of the user's turn and the generation prompt."""
    turns = [{"role": "user", "content": prompt}]
    return list(tok.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))


def answered_ids(tok, prompt, answer):
    """Token ids of a whole chat of two turns."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return list(tok.apply_chat_template(turns, return_dict=False))


@torch.no_grad()
def log_probability(model, tok, prompt, answer):
    """Of the answer's tokens behind the generation prompt, from the chat of two turns."""
    asked, whole = asked_ids(tok, prompt), answered_ids(tok, prompt, answer)
    end = len(whole) - len(tok("</s>\n", add_special_tokens=False)["input_ids"])
    assert whole[: len(asked)] == asked and end > len(asked)
    logs = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(float(logs[at - 1, whole[at]]) for at in range(len(asked), end))
