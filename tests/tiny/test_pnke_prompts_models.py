"""P_sem with models: what they write, what it depends on, what is kept, and that nothing is disturbed."""

import json

import pytest
import torch

from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError, StateError
from easyedit_neuron.models.pnke.pnke_options import PNKEScoringOptions
from easyedit_neuron.models.pnke.prompts import semantic_prompts
from easyedit_neuron.models.pnke.prompts import sources as prompt_sources
from easyedit_neuron.models.pnke.prompts.sources import CHAT, PLAIN
from easyedit_neuron.models.pnke.prompts.writing_model import Sampling, WritingModel
from helpers.editing import changed_tensors, snapshot
from helpers.tiny_models import tiny_model
from helpers.writers import answering, marian

EDIT = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Oslo",
    "ground_truth": "Paris",
}
SHORT = "Say {prompt} again:"
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} [assistant]{% endif %}"
)


CONSTANTS = {"instruction": "PLAIN", "temperature": "TEMPERATURE", "top_k": "TOP_K"}


def psem(model, tok, *requests, sources=("paraphrase",), m=10, cache_dir=None, seed=0, **settings):
    """P_sem with ``psem_<name>`` for every other setting, and with other constants of the sources."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CONSTANTS.keys() & settings.keys():
            patch.setattr(prompt_sources, CONSTANTS[name], settings.pop(name))
        options = PNKEScoringOptions(
            psem_sources=list(sources),
            psem_size=m,
            psem_cache_dir=cache_dir and str(cache_dir),
            seed=seed,
            **{f"psem_{name}": value for name, value in settings.items()},
        )
        return semantic_prompts(prepare(list(requests) or [EDIT]), model, tok, options, [])


def saved(folder, pair):
    """Save a model with its tokenizer; returns the folder's name."""
    for part in pair:
        part.save_pretrained(folder)
    return str(folder)


def plain_samples(model, ids, n, length, seed, temperature, top_k):
    """Token rows by one full forward per token and row, the noise drawn as documented."""
    noise, rows = torch.Generator().manual_seed(seed), [list(ids) for _ in range(n)]
    for _ in range(length):
        uniform = torch.rand((n, top_k), generator=noise, dtype=torch.float64)
        for row in range(n):
            with torch.no_grad():
                best = model(input_ids=torch.tensor([rows[row]])).logits[0, -1].topk(top_k)
            score = best.values.double() / temperature - (torch.log(-torch.log(uniform[row])) if row else 0)
            rows[row].append(int(best.indices[score.argmax()]))
    return [row[len(ids) :] for row in rows]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "gemma2", "gpt_neox"])
def test_samples_are_those_of_the_plain_loop(kind):
    model, tok = tiny_model(kind)
    model.double()
    ids, writer = tok("Anna Berg was born in")["input_ids"], WritingModel(model, tok)
    expected = plain_samples(model, ids, 3, 6, 5, 0.7, 8)
    cut = [row[: row.index(tok.eos_token_id)] if tok.eos_token_id in row else row for row in expected]
    texts = writer.sample(ids, Sampling(3, 6, 5, 0.7, 8))
    assert texts == [tok.decode(row, skip_special_tokens=True) for row in cut] and len(set(texts)) == 3
    assert writer.sample(ids, Sampling(1, 6, 9, 0.7, 8)) == texts[:1]


def test_a_sample_ends_at_the_end_token_the_line_break_and_the_last_position():
    asked, said = "Say it:", "\nAnna Berg is\nnever this"
    model, tok = answering("llama", [(asked, said)])
    ids, writer = tok(asked)["input_ids"], WritingModel(model, tok)

    def write(length, one_line):
        return writer.sample(ids, Sampling(1, length, 0, 1.0, 5, one_line))[0]

    assert write(60, False) == said and write(60, True) == "\nAnna Berg is\n"
    model.generation_config.eos_token_id = tok("\n", add_special_tokens=False)["input_ids"]
    assert write(60, False) == ""
    model.generation_config.eos_token_id = None
    model.config.max_position_embeddings = len(ids) + 2
    assert said.startswith(write(60, False)) and 0 < len(write(60, False)) < 10
    model.config.max_position_embeddings = len(ids) - 1
    assert write(60, False) == ""


@pytest.mark.parametrize("chat", [False, True])
def test_paraphrases_of_a_model_that_knows_some(chat):
    """Greedy text first; the prompt is asked about, then the rephrasing; a chat template is used where there
    is one."""
    asked = [
        (CHAT if chat else PLAIN).replace("{subject}", "Anna Berg").replace("{prompt}", text)
        for text in (EDIT["prompt"], "Anna Berg is from")
    ]
    asked = [f"[user] {text} [assistant]" if chat else text for text in asked]
    said = [
        " The place of Anna Berg is" + ("" if chat else "\nPrompt"),
        " Home to Anna Berg is Oslo or" + ("" if chat else "\n"),
    ]
    model, tok = answering("llama", list(zip(asked, said)), bos=not chat)
    if chat:
        tok.chat_template = TEMPLATE
    (semantic,) = psem(
        model,
        tok,
        {**EDIT, "rephrase": "Anna Berg is from"},
        sources=("dataset", "paraphrase"),
        temperature=0.01,
        m=3,
    )
    assert semantic.texts == [
        "Anna Berg is from",
        "The place of Anna Berg is",
    ]  # the other one says the new object
    assert semantic.sources == ["dataset", "paraphrase"] and semantic.shortfall == 1


def test_nothing_is_disturbed(tmp_path):
    model, tok = tiny_model("gpt2")  # with dropout
    model.train()
    model.transformer.h[0].eval()
    names = [saved(tmp_path / str(seed), marian(seed=seed)) for seed in (0, 1)]
    before = snapshot(model)
    tokens = tok.backend_tokenizer.to_str(), tok.padding_side, tok.pad_token
    config = model.generation_config.to_dict(), model.config.to_dict()
    state = torch.get_rng_state()
    options = dict(
        sources=("paraphrase", "translation"), instruction=SHORT, max_new_tokens=5, translation_models=names
    )
    runs = [psem(model, tok, **options) for _ in range(2)]
    assert runs[0] == runs[1] and torch.equal(torch.get_rng_state(), state)
    assert changed_tensors(model, before) == []
    assert (tok.backend_tokenizer.to_str(), tok.padding_side, tok.pad_token) == tokens
    assert (model.generation_config.to_dict(), model.config.to_dict()) == config


def test_texts_depend_on_request_and_seed_alone(monkeypatch):
    """Not on the other requests of the batch."""
    model, tok = tiny_model("llama")
    seen = []
    plain = WritingModel.sample

    def spy(self, *args, **kwargs):
        seen.append(plain(self, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(WritingModel, "sample", spy)
    other = {**EDIT, "prompt": "Anna Berg lives in"}
    options = dict(instruction=SHORT, max_new_tokens=6)
    psem(model, tok, EDIT, other, **options)
    psem(model, tok, other, EDIT, **options)
    psem(model, tok, EDIT, seed=1, **options)
    assert seen[0] == seen[3] and seen[1] == seen[2] and seen[0] != seen[1]
    assert seen[4][0] == seen[0][0] and seen[4] != seen[0]


def test_what_was_written_is_kept_under_weights_or_configuration(tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    written = []
    monkeypatch.setattr(
        WritingModel,
        "sample",
        lambda self, *args, **kwargs: written.append(1) or ["The home of Anna Berg is", "no"],
    )
    base = dict(instruction=SHORT, cache_dir=tmp_path, m=1)

    def count(**changes):
        before = len(written)
        assert psem(model, tok, **{**base, **changes})[0].texts == ["The home of Anna Berg is"]
        return len(written) - before

    assert [count(), count(), count(m=2)] == [1, 0, 0]
    assert [
        count(seed=1),
        count(max_new_tokens=9),
        count(instruction="Once more: {prompt}"),
        count(top_k=3),
    ] == [1, 1, 1, 1]
    assert count(cache_dir=None) == 1
    assert [count(cache_by="text"), count(cache_by="text")] == [1, 0]
    files = {path: json.loads(path.read_text("utf-8")) for path in tmp_path.iterdir()}
    assert len(files) == 6 and all(file["texts"][1] == "no" and file["written_by"] for file in files.values())
    with torch.no_grad():
        model.lm_head.weight[3, 4] += 1
    assert [count(), count(cache_by="text")] == [1, 0]
    (text,) = [path for path, file in files.items() if "configuration" in file["about"]]
    text.write_text(text.read_text("utf-8").replace(SHORT[:3], "Tell"), encoding="utf-8")
    with pytest.raises(StateError, match="delete it to write the prompts anew"):
        count(cache_by="text")


def test_no_model_is_loaded_or_fingerprinted_before_it_is_needed(monkeypatch):
    monkeypatch.setattr(WritingModel, "weights", property(lambda self: pytest.fail("the weights were read")))
    model, tok = tiny_model("llama")
    (semantic,) = psem(
        model,
        tok,
        {**EDIT, "rephrase": ["Anna Berg is from"]},
        sources=("dataset", "paraphrase", "translation"),
        m=1,
        paraphrase_model="/no/such/folder",
        translation_models=["/no/such/folder", "/none"],
    )
    assert semantic.sources == ["dataset"]
    psem(model, tok, instruction=SHORT, max_new_tokens=2)  # nor without a cache


THERE = [("Anna Berg was born in", "Anna Berg est née à")]
BACK = [("Anna Berg est née à", "Anna Berg came from .")]


@pytest.fixture(scope="module")
def translators(tmp_path_factory):
    """Folders of two translation models."""
    return [saved(tmp_path_factory.mktemp("translator"), marian(pairs, 60)) for pairs in (THERE, BACK)]


def test_there_and_back_again(translators, tmp_path, monkeypatch):
    model, tok = tiny_model("llama")
    options = dict(
        sources=("translation",), translation_models=translators, cache_dir=tmp_path, m=1, max_new_tokens=10
    )
    (semantic,) = psem(model, tok, **options)
    assert (semantic.texts, semantic.sources, semantic.shortfall) == (
        ["Anna Berg came from"],
        ["translation"],
        0,
    )
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text("utf-8"))
    assert file.name.startswith("translation-") and content["about"]["text"] == EDIT["prompt"]
    assert content["texts"][0] == "Anna Berg came from ."
    monkeypatch.setattr(WritingModel, "beams", lambda *args: pytest.fail("translated again"))
    assert psem(model, tok, **options) == [semantic]


def test_random_translators_give_a_shortfall_and_no_garbage(tmp_path):
    model, tok = tiny_model("llama")
    names = [saved(tmp_path / str(seed), marian(seed=seed)) for seed in (0, 1)]
    (semantic,) = psem(model, tok, sources=("translation",), translation_models=names, max_new_tokens=4)
    assert (
        all("Anna Berg" in text for text in semantic.texts)
        and semantic.shortfall == 10 - len(semantic.texts) > 0
    )
    assert (
        psem(model, tok, sources=("translation",))[0].shortfall == 10
    )  # no models named: the source is passed over


def test_named_models_are_loaded_once_for_the_edited_model(translators, monkeypatch):
    import transformers

    loads = []
    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForSeq2SeqLM,
        "from_pretrained",
        lambda path, **kwargs: loads.append(path) or plain(path, **kwargs),
    )
    model, tok = tiny_model("llama")
    for _ in range(2):
        (semantic,) = psem(model, tok, sources=("translation",), translation_models=translators, m=1)
        assert semantic.texts == ["Anna Berg came from"]
    assert loads == translators


def test_an_encoder_decoder_can_paraphrase(tmp_path):
    model, tok = tiny_model("llama")
    pairs = [("paraphrase: Anna Berg was born in", "The home of Anna Berg is")]
    name = saved(tmp_path, marian(pairs, 60))
    (semantic,) = psem(model, tok, paraphrase_model=name, m=1, max_new_tokens=12)
    assert semantic.texts == ["The home of Anna Berg is"] and semantic.sources == ["paraphrase"]


def test_another_causal_model_can_be_named(tmp_path):
    edited, tok = tiny_model("gpt2")
    name = saved(
        tmp_path, answering("llama", [(SHORT.replace("{prompt}", EDIT["prompt"]), " Home to Anna Berg is")])
    )
    (semantic,) = psem(edited, tok, paraphrase_model=name, instruction=SHORT, m=1, temperature=0.01)
    assert semantic.texts == ["Home to Anna Berg is"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("paraphrase_model", "/no/such/folder"),
        ("translation_models", ["/no/such/folder", "/nor/this"]),
        ("translation_models", "causal"),
    ],
)
def test_models_that_cannot_be_used_are_named(field, value, tmp_path):
    model, tok = tiny_model("llama")
    value = [saved(tmp_path, (model, tok))] * 2 if value == "causal" else value
    sources = ["paraphrase" if field == "paraphrase_model" else "translation"]
    with pytest.raises(HparamsError, match=f"field 'psem_{field}'"):
        psem(model, tok, sources=sources, **{field: value})
