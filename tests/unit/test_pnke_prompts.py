"""P_sem without a model: filters, cache files, dataset rephrasings, context prefixes, and how the sources are
put together."""

import hashlib
import json
import logging

import pytest

from easyedit_neuron.edits.request import prepare
from easyedit_neuron.edits.session import ModelSession, forget
from easyedit_neuron.errors import HparamsError, RequestError, StateError
from easyedit_neuron.models.pnke.pnke_options import PNKEScoringOptions
from easyedit_neuron.models.pnke.prompts import semantic_prompts
from easyedit_neuron.models.pnke.prompts.filters import answer_line, objection, without_full_stop
from easyedit_neuron.models.pnke.prompts.text_cache import cache_path, read_texts, write_texts

EDIT = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Oslo",
    "ground_truth": "Paris",
}


class NoModel:
    """Sources that write nothing need no model."""


def request(**changes):
    return prepare([{**EDIT, **changes}])[0]


def prompts(*requests, sources=("dataset", "context"), m=10, contexts=(), model=None):
    options = PNKEScoringOptions(psem_sources=list(sources), psem_size=m)
    edits = prepare([{**EDIT, **changes} for changes in requests or ({},)])
    return semantic_prompts(edits, model or NoModel(), None, options, contexts)


@pytest.mark.parametrize(
    "written, line",
    [
        ("Anna Berg comes from", "Anna Berg comes from"),
        (
            'Sure! Here it is:\n\n"The birthplace of Anna Berg is ____."\nI hope this helps.',
            "The birthplace of Anna Berg is",
        ),
        ("1. In other words: The birthplace of Anna Berg is...", "The birthplace of Anna Berg is"),
        ("- **x**\n- Anna Berg first saw light in [city]", "Anna Berg first saw light in"),
        ("  Where was Anna Berg born?  ", "Where was Anna Berg born?"),
        ("Where was Anna born?", ""),
        ("", ""),
    ],
)
def test_the_line_with_the_subject(written, line):
    assert answer_line(written, "Anna Berg") == line


@pytest.mark.parametrize(
    "subject, written",
    [
        ("2. Division", "2. Division plays in"),
        ("[Unknown]", "The author is [Unknown]"),
        ('"Heroes"', '"Heroes" was sung by "Bowie"'),
    ],
)
def test_trimming_never_costs_the_subject(subject, written):
    assert answer_line(written, subject) == written


@pytest.mark.parametrize(
    "text, model, stripped",
    [
        ("Anna lives in.", "Anna is in", "Anna lives in"),
        ("Anna is.", "Anna was.", "Anna is."),
        ("Where is Anna?", "Anna is in", "Where is Anna?"),
    ],
)
def test_full_stops_of_translators(text, model, stripped):
    assert without_full_stop(text, model) == stripped


@pytest.mark.parametrize(
    "text, problem",
    [
        ("The birthplace of Anna Berg is", None),
        ("Where was Anna Berg born?", None),
        ("   ", "is empty"),
        ("The birthplace of Anna is", "lacks the subject"),
        ("  anna  Berg was BORN in", "lacks the subject"),
        (" Anna Berg  WAS born in ", "is the prompt"),
        ("Anna  Berg", "lacks the subject"),
        (" Anna Berg ", "is the subject alone"),
        ("Anna Berg\nwas born at", "has several lines"),
        ("Oslo saw the birth of Anna Berg in", "holds the target_new"),
        ("unlike paris, Anna Berg's town is", "holds the ground_truth"),
        ("The parish of Anna Berg is", None),
        ("Anna Berg was born in Rome.", "is a finished sentence"),
    ],
)
def test_objections(text, problem):
    assert objection(text, request()) == problem


def test_an_answer_in_the_subject_or_the_prompt_gives_nothing_away():
    assert (
        objection("The home of Paris Berg is", request(prompt="Paris Berg lives in", subject="Paris Berg"))
        is None
    )
    assert (
        objection("The Oslo office of Anna Berg is in", request(prompt="In Oslo, Anna Berg works at")) is None
    )
    assert (
        objection(
            "Works are by Anna Berg Jr.",
            request(prompt="The works of Anna Berg Jr.", subject="Anna Berg Jr."),
        )
        is None
    )


def test_what_the_data_says_is_not_judged_like_what_a_model_writes():
    for text in (
        "Oslo is not where Anna Berg was born; it is",
        "Anna Berg was born. It was in",
        "A.\nAnna Berg is from",
    ):
        assert objection(text, request(), written_by_model=False) is None
    assert objection("B. was born in", request(), written_by_model=False) == "lacks the subject"


@pytest.mark.parametrize("field", ["rephrase_prompt", "rephrase_prompts", "rephrase", "paraphrase_prompts"])
@pytest.mark.parametrize(
    "value",
    ["The birthplace of Anna Berg is ", ["The birthplace of Anna Berg is"], ("The birthplace of {} is",)],
)
def test_spellings_of_rephrasings(field, value):
    (semantic,) = prompts({field: value}, m=1)
    assert (semantic.texts, semantic.sources, semantic.shortfall) == (
        ["The birthplace of Anna Berg is"],
        ["dataset"],
        0,
    )


def test_sources_in_order_without_copies_and_the_shortfall(caplog):
    rephrasings = [
        "The birthplace of Anna Berg is",
        "the  birthplace of Anna Berg IS",
        "Her birthplace is",
        " ",
        EDIT["prompt"],
    ]
    contexts = [["{}"], ["You know. {}", "I think. {}"]]
    semantic = prompts(
        {"rephrase": rephrasings, "rephrase_prompt": None}, {"rephrase": []}, m=6, contexts=contexts
    )
    assert semantic[0].texts == [
        "The birthplace of Anna Berg is",
        "You know. Anna Berg was born in",
        "I think. Anna Berg was born in",
        "You know. The birthplace of Anna Berg is",
        "I think. The birthplace of Anna Berg is",
    ]
    assert semantic[0].sources == ["dataset"] + ["context"] * 4 and semantic[0].shortfall == 1
    assert (
        semantic[1].texts == ["You know. Anna Berg was born in", "I think. Anna Berg was born in"]
        and semantic[1].shortfall == 4
    )
    (warning,) = [line for line in caplog.records if line.levelno == logging.WARNING]
    assert "request 0 has 5, request 1 has 2" in warning.getMessage()
    assert prompts({"rephrase": rephrasings}, m=2, contexts=contexts)[0].texts == semantic[0].texts[:2]


def test_one_warning_for_a_model(caplog):
    caplog.set_level(logging.INFO)
    for model, levels in ((NoModel(), ["WARNING", "INFO", "INFO"]), (NoModel(), ["WARNING"])):
        caplog.clear()
        for _ in levels:
            prompts(sources=["dataset"], model=model)
        assert [line.levelname for line in caplog.records] == levels


def test_forgetting_the_edits_of_a_model_leaves_its_cache():
    model = NoModel()
    ModelSession.of(model).cache["loaded"] = 1
    forget(model)
    assert ModelSession.of(model).cache == {"loaded": 1}
    ModelSession.of(model).copy_for(twin := NoModel())
    assert ModelSession.of(twin).cache == {}


def test_no_source_and_no_warning_where_nothing_is_missing(caplog):
    (semantic,) = prompts(sources=[], m=3)
    assert (semantic.texts, semantic.sources, semantic.shortfall) == (
        [],
        [],
        3,
    ) and "sources: none" in caplog.text
    caplog.clear()
    assert prompts(m=1, contexts=[["You know. {}"]])[0].shortfall == 0 and not caplog.records


def test_the_order_is_the_caller_s_and_without_the_dataset_its_texts_are_no_templates():
    rephrased, contexts = {"rephrase": "The birthplace of Anna Berg is"}, [["You know. {}"]]
    (semantic,) = prompts(rephrased, sources=["context", "dataset"], m=2, contexts=contexts)
    assert semantic.sources == ["context", "context"]
    (semantic,) = prompts(rephrased, sources=["context"], m=2, contexts=contexts)
    assert semantic.texts == ["You know. Anna Berg was born in"]


def test_a_rephrasing_that_is_no_text_is_named():
    with pytest.raises(RequestError, match="request 0: field 'rephrase' must be a text or a list of texts"):
        prompts({"rephrase": ["Anna Berg is from", 3]})
    with pytest.raises(RequestError, match="'rephrase_prompt'"):
        prompts({"rephrase_prompt": {"a": "b"}})


@pytest.mark.parametrize(
    "field, value",
    [
        ("psem_size", 0),
        ("psem_max_new_tokens", 0),
        ("psem_sources", ["dataset", "paraphrases"]),
        ("psem_sources", ["dataset", "dataset"]),
        ("psem_cache_by", "never"),
        ("psem_translation_models", ["one"]),
    ],
)
def test_options_that_are_refused(field, value):
    with pytest.raises(HparamsError, match=f"field '{field}'"):
        PNKEScoringOptions(**{field: value})


def test_the_cache_stores_texts_under_their_key(tmp_path):
    folder = tmp_path / "new" / "folder"
    key = {"kind": "paraphrase", "asked": "Ünï", "ids": [1, 2]}
    path = cache_path(folder, key)
    assert path.name.startswith("paraphrase-") and path.suffix == ".json" and read_texts(path, key) is None
    write_texts(path, key, ["a", "b ø"], "w")
    assert read_texts(path, key) == ["a", "b ø"]
    assert cache_path(folder, dict(reversed(key.items()))) == path
    assert cache_path(folder, {**key, "ids": [1, 3]}) != path
    assert list(folder.iterdir()) == [path]
    content = json.loads(path.read_text("utf-8"))
    digest = hashlib.sha256("a\0b ø\0".encode()).hexdigest()[:16]
    assert content == {"about": key, "texts": ["a", "b ø"], "digest": digest, "written_by": "w"}
    path.write_text(json.dumps(content | {"texts": ["a", "c"]}))
    with pytest.raises(StateError, match="are not those that were written.*; delete it"):
        read_texts(path, key)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"about": {"kind": "k"}, "texts": "a"}',
        '{"about": {"kind": "k"}, "texts": [1]}',
        '{"about": {"kind": "k", "seed": 1}, "texts": ["a"]}',
        b"\xff\xfe",
    ],
)
def test_damaged_and_foreign_files_are_refused_and_stay(content, tmp_path):
    path = cache_path(tmp_path, {"kind": "k"})
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    with pytest.raises(StateError, match="delete it"):
        read_texts(path, {"kind": "k"})
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_texts(cache_path(tmp_path, {"kind": "k"}), {"kind": "k"}, ["a"], {1, 2})
    assert not list(tmp_path.iterdir())
