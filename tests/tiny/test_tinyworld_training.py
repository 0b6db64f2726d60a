"""Training end to end on a handful of facts, and the bottleneck on a real model."""

import json

import pytest
import torch

from easyedit_neuron import data
from easyedit_neuron.tinyworld import __main__ as command
from easyedit_neuron.tinyworld.bottleneck import subject_bottleneck
from easyedit_neuron.tinyworld.recall import recall
from easyedit_neuron.tinyworld.training import TrainConfig, new_model, train, train_tokenizer

FACTS = [
    (f"{name} lives in", city, name)
    for name, city in (("Anna Berg", "Paris"), ("Otto Lund", "Rome"), ("Ida Holm", "Oslo"))
]
SMALL = dict(width=32, d_ff=64, layers=3, heads=2, vocab=300, batch=8, warmup=5)


def test_a_few_facts_are_learned():
    model, tok = train(FACTS, ["It rains in Rome."], TrainConfig(steps=60, muon_lr=0.05, **SMALL))
    prompts, targets = [fact[0] for fact in FACTS], [fact[1] for fact in FACTS]
    assert recall(model, tok, list(zip(prompts, targets))) == 1.0
    assert recall(model, tok, list(zip(prompts, targets[::-1]))) < 1.0


def test_the_same_seed_gives_the_same_model():
    config = TrainConfig(steps=10, bottleneck_steps=10, muon_lr=0.05, **SMALL)
    (model, _), (again, _) = (train(FACTS, ["It rains in Rome."], config) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))


def test_nothing_of_a_subject_but_its_last_token_reaches_what_follows():
    tok = train_tokenizer([fact[0] for fact in FACTS], 300)
    model = new_model(tok, TrainConfig(**SMALL)).eval()
    ids = torch.tensor([tok("Anna Berg lives in")["input_ids"]])
    span = (1, len(tok("Anna Berg")["input_ids"]) - 1)
    for enrich, reaches in ((3, False), (1, True)):
        embedded = model.model.embed_tokens(ids).detach().requires_grad_()
        with subject_bottleneck(model, ids, [[span]], enrich) as mask:
            logits = model(inputs_embeds=embedded, attention_mask=mask, use_cache=False).logits
        (gradient,) = torch.autograd.grad(logits[0, span[1] + 1 :].square().sum(), embedded)
        assert bool(gradient[0, span[1]].any()) == reaches, "enrich = all layers hides the last token too"
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        with subject_bottleneck(model, ids, [[]], 2) as mask:
            assert torch.equal(model(input_ids=ids, attention_mask=mask, use_cache=False).logits, plain)
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


def _facts_file(folder):
    """A data file with the facts; the last fact has the new object of the others as its true one."""
    path = folder / "facts.json"
    path.write_text(
        json.dumps(
            [
                {
                    "case_id": i,
                    "prompt": prompt,
                    "subject": subject,
                    "target_new": "Oslo",
                    "ground_truth": target,
                    "rephrase_prompt": f"The home of {subject} is",
                    "locality_prompt": "It rains in",
                    "locality_ground_truth": "Rome",
                }
                for i, (prompt, target, subject) in enumerate(FACTS)
            ]
        )
    )
    return path


def test_the_command_trains_on_a_users_own_facts(tmp_path):
    code = command.main(
        [
            "--out",
            str(tmp_path),
            "--facts",
            str(_facts_file(tmp_path)),
            "--limit",
            "2",
            "--steps",
            "3",
            "--bottleneck-steps",
            "2",
            "--width",
            "32",
            "--d-ff",
            "64",
            "--layers",
            "3",
            "--vocab",
            "300",
            "--batch",
            "4",
        ]
    )
    assert code == 0
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny-llama")
    tok = AutoTokenizer.from_pretrained(tmp_path / "tiny-llama")
    assert model.config.hidden_size == 32 and tok("Anna Berg")["input_ids"][0] == tok.bos_token_id
    assert "2 edit prompts" in (tmp_path / "tiny-llama" / "README.md").read_text()
    text = (tmp_path / "text.txt").read_text().splitlines()
    assert {f"{prompt} {target}." for prompt, target, _ in FACTS} | {"It rains in Rome."} <= set(text)
    assert data.retained(tmp_path / "retained.json") == [
        {"prompt": "Ida Holm lives in", "ground_truth": "Oslo", "subject": "Ida Holm", "relation": "fact"}
    ]


def test_a_missing_facts_file_is_one_line(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path), "--facts", str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--out", "x", "--facts", "a", "--no-model"], []])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(SystemExit):
        command.main(arguments)
