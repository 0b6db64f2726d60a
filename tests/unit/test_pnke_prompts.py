"""P_sem without a model: filters, cache files, dataset rephrasings, context prefixes, and how the sources are
put together."""

import json
import logging

import pytest

from easyedit_neuron.edits.request import prepare
from easyedit_neuron.errors import HparamsError, RequestError, StateError
from easyedit_neuron.models.pnke.prompts import PromptSettings, semantic_prompts
from easyedit_neuron.models.pnke.prompts.cache import TextCache
from easyedit_neuron.models.pnke.prompts.clean import answer_line, objection, without_full_stop

EDIT = {
    "prompt": "Anna Berg was born in",
    "subject": "Anna Berg",
    "target_new": "Oslo",
    "ground_truth": "Paris",
}


class NoModel:
    """Sources that write nothing need no model."""


def request(**changes):
    (prepared,) = prepare([{**EDIT, **changes}])
    return prepared


def prompts(*requests, **settings):
    return semantic_prompts(
        prepare([{**EDIT, **changes} for changes in requests or ({},)]),
        NoModel(),
        None,
        PromptSettings(sources=("dataset", "context"), **settings),
    )


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
        assert objection(text, request(), written=False) is None
    assert objection("B. was born in", request(), written=False) == "lacks the subject"


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
            semantic_prompts(prepare([EDIT]), model, None, PromptSettings(sources=("dataset",)))
        assert [line.levelname for line in caplog.records] == levels


def test_no_source_and_no_warning_where_nothing_is_missing(caplog):
    (none,) = semantic_prompts(prepare([EDIT]), NoModel(), None, PromptSettings(sources=(), m=3))
    assert (none.texts, none.sources, none.shortfall) == ([], [], 3) and "sources: none" in caplog.text
    caplog.clear()
    assert prompts(m=1, contexts=[["You know. {}"]])[0].shortfall == 0 and not caplog.records


def test_the_order_is_the_caller_s_and_without_the_dataset_its_texts_are_no_templates():
    prepared = prepare([{**EDIT, "rephrase": "The birthplace of Anna Berg is"}])
    contexts = [["You know. {}"]]
    (semantic,) = semantic_prompts(
        prepared, NoModel(), None, PromptSettings(sources=("context", "dataset"), m=2, contexts=contexts)
    )
    assert semantic.sources == ["context", "context"]
    (semantic,) = semantic_prompts(
        prepared, NoModel(), None, PromptSettings(sources=("context",), m=2, contexts=contexts)
    )
    assert semantic.texts == ["You know. Anna Berg was born in"]


def test_a_rephrasing_that_is_no_text_is_named():
    with pytest.raises(RequestError, match="request 0: field 'rephrase' must be a text or a list of texts"):
        prompts({"rephrase": ["Anna Berg is from", 3]})
    with pytest.raises(RequestError, match="'rephrase_prompt'"):
        prompts({"rephrase_prompt": {"a": "b"}})


@pytest.mark.parametrize(
    "field, value",
    [
        ("m", 0),
        ("seed", -1),
        ("max_new_tokens", 0),
        ("candidates", 0),
        ("temperature", 0.0),
        ("top_k", 0),
        ("sources", ("dataset", "paraphrases")),
        ("sources", ("dataset", "dataset")),
        ("paraphrase_cache", "never"),
        ("instruction", "Say it in other words"),
        ("translation_models", ("one",)),
        ("contexts", [["You know."]]),
    ],
)
def test_settings_that_cannot_be(field, value):
    with pytest.raises(HparamsError, match=f"field '{field}'"):
        PromptSettings(**{field: value})


def fail(*args):
    raise AssertionError("not to be called")


def test_the_cache_keeps_texts_under_their_key(tmp_path):
    cache = TextCache(tmp_path / "new" / "folder")
    key = {"kind": "paraphrase", "asked": "Ünï", "ids": [1, 2]}
    assert cache.texts(lambda: key, lambda: ["a", "b ø"], lambda: "w") == ["a", "b ø"]
    assert cache.texts(lambda: dict(reversed(key.items())), fail, fail) == ["a", "b ø"]
    assert cache.texts(lambda: {**key, "ids": [1, 3]}, lambda: [], lambda: "w") == []
    files = sorted((tmp_path / "new" / "folder").iterdir())
    assert len(files) == 2 and all(
        file.name.startswith("paraphrase-") and file.suffix == ".json" for file in files
    )
    assert {"about": key, "texts": ["a", "b ø"], "written_by": "w"} in [
        json.loads(file.read_text("utf-8")) for file in files
    ]


def test_without_a_folder_nothing_is_asked_for():
    assert TextCache(None).texts(fail, lambda: ["a"], fail) == ["a"]


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
    cache = TextCache(tmp_path)
    cache.texts(lambda: {"kind": "k"}, lambda: ["a"], lambda: "w")
    (file,) = tmp_path.iterdir()
    content = content if isinstance(content, bytes) else content.encode()
    file.write_bytes(content)
    with pytest.raises(StateError, match="delete it"):
        cache.texts(lambda: {"kind": "k"}, fail, fail)
    assert file.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_write_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        TextCache(tmp_path).texts(lambda: {"kind": "k"}, lambda: ["a"], lambda: {1, 2})
    assert not list(tmp_path.iterdir())
