"""Damaged requests, data files, hyperparameters and settings of the command line."""

import copy
import csv
import datetime
import decimal
import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy
import torch
import yaml

from easyedit_neuron import data, resources
from easyedit_neuron.cli import main
from easyedit_neuron.evaluation.sections import sections
from easyedit_neuron.host.base_editor import BaseEditor
from easyedit_neuron.hyperparameters.base import read_hparams
from easyedit_neuron.registry import get_method
from helpers.contract import settings, tokenizer_state
from helpers.dummy_method import DummyHyperParams, register_dummy
from helpers.edit_cases import EXTRAS, PROMPTS, TARGETS, bits_of
from helpers.editing import METHODS, REQUESTS, make_hparams
from helpers.fuzzing import Trial, command, files_below
from helpers.mutations import TEXTS, as_json, damaged_bytes, mutated, some_value, written_out
from helpers.tiny_models import tiny_model

# -- requests --------------------------------------------------------------------------------------------

CALLS = ("edit", "edit", "edit_requests", "batch_edit", "normal_edit", "generate_edit")
KEYWORDS = ("pre_edit", "pre_file", "records", "guard", "eval_metric", "final_evaluation", "loc_prompts")
ROWS = ("Dummy", "Dummy", "ROME", "MEMIT", "FiNE", "FT", "PNKE", "Lasting")


class Requests:
    """Calls of the editor, and of the methods' own functions, with damaged arguments."""

    def __init__(self, folder: Path):
        register_dummy()
        self.folder = folder
        self.model, self.tok = tiny_model("llama", seed=3)
        self.untouched = copy.deepcopy(self.model)
        self.editors = {row: self._editor(row) for row in dict.fromkeys(ROWS)}

    def _editor(self, row: str) -> BaseEditor:
        if row == "Dummy":
            hparams: Any = DummyHyperParams()
        elif row == "FT":
            fields = dict(alg_name="FT", layers=[1], num_steps=1, lr=0.01, device="cpu", model_name="memory")
            hparams = get_method("FT").load_hparams()(**fields)
        elif row in METHODS:
            hparams = make_hparams(row, self.folder, v_num_grad_steps=1)
        else:
            hparams = settings(row, self.folder, **({"epochs": 1} if row == "FiNE" else {}))
        hparams.model_name = self.model, self.tok
        return BaseEditor.from_hparams(hparams)

    def attempt(self, number: int, chance: random.Random) -> Trial:
        row, call = chance.choice(ROWS), chance.choice((*CALLS, "apply"))
        editor = self.editors["MEMIT" if (row, call) == ("Dummy", "apply") else row]
        self.model = editor.model = copy.deepcopy(self.untouched)
        if call == "apply":
            requests = written_out(mutated(REQUESTS, chance))
            call_it = lambda: editor.apply_algo(  # noqa: E731
                self.model, self.tok, requests, editor.hparams, return_orig_weights=True
            )
            return Trial(call_it, self._state, what=f"{editor.alg_name} {call} {shown(requests)}")
        arguments = written_out(mutated(self._arguments(call), chance))
        if isinstance(arguments, dict) and chance.random() < 0.25:
            arguments[chance.choice((*sorted(map(str, arguments)), *KEYWORDS))] = unusual(chance)
        if not isinstance(arguments, dict):
            arguments = {"prompts": arguments, "target_new": arguments}
        arguments = {"verbose": False, **arguments} if call != "normal_edit" else arguments
        arguments = {str(name).encode("utf-8", "replace").decode(): v for name, v in arguments.items()}
        required = {"edit_requests": ("requests",), "normal_edit": ("prompts", "target_new")}
        for name in required.get(call, ()):
            arguments.setdefault(name, None)
        what = f"{editor.alg_name} {call} {shown(arguments)}"
        return Trial(lambda: getattr(editor, call)(**arguments), self._state, what=what)

    def _arguments(self, call: str) -> dict[str, Any]:
        if call == "edit_requests":
            return {"requests": [{**r, "locality": {}, "portability": {}} for r in REQUESTS[:2]]}
        arguments = {"prompts": PROMPTS[:2], "target_new": TARGETS[:2], "subject": EXTRAS["subject"][:2]}
        if call == "normal_edit":
            return arguments
        arguments |= {name: EXTRAS[name][:2] for name in ("ground_truth", "rephrase_prompts")}
        for section in ("locality_inputs", "portability_inputs"):
            arguments[section] = {
                kind: {name: values[:2] for name, values in inputs.items()}
                for kind, inputs in EXTRAS[section].items()
            }
        if call == "generate_edit":
            arguments = {name: arguments[name] for name in ("prompts", "target_new", "subject")}
            arguments |= {"max_new_tokens": 2}
        return copy.deepcopy(arguments) | {"sequential_edit": True}

    def _state(self):
        return (
            bits_of(self.model),
            tokenizer_state(self.tok),
            [p.requires_grad for p in self.model.parameters()],
        )


def unusual(chance: random.Random) -> Any:
    """An argument that no file could hold."""
    return chance.choice(
        (
            lambda: (text for text in PROMPTS),
            lambda: {"a", "b"},
            lambda: b"bytes",
            lambda: numpy.arange(3),
            lambda: torch.ones(2),
            lambda: object(),
            lambda: lambda: 1,
            lambda: {1: 2},
            lambda: [b"x"],
            lambda: Path("x"),
            lambda: numpy.float32("nan"),
            lambda: some_value(chance),
        )
    )()


def shown(value: Any) -> str:
    """A description of a value that may be too deep to be written."""
    try:
        return repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that cannot be written"


# -- data files ------------------------------------------------------------------------------------------

RECORDS = {
    "knowedit": [
        {
            "subject": "Anna Berg",
            "prompt": "Anna Berg was born in",
            "target_new": "Oslo",
            "ground_truth": ["Paris"],
            "rephrase_prompt": "The birth place of Anna Berg is",
            "locality": {"Other": [{"prompt": "Rome is in", "ground_truth": [["Italy"]]}]},
            "portability": {"Reasoning": [{"prompt": "She lives in", "ground_truth": ["Norway"]}]},
        }
    ],
    "counterfact": [
        {
            "prompt": "Anna Berg was born in",
            "target_new": "Oslo",
            "ground_truth": "Paris",
            "rephrase_prompt": "The birth place of Anna Berg is",
            "subject": "Anna Berg",
            "locality_prompt": "Rome is in",
            "locality_ground_truth": "Italy",
        }
    ],
    "zsre": [
        {
            "subject": "Anna Berg",
            "src": "Where was Anna Berg born?",
            "alt": "Oslo",
            "answers": ["Paris"],
            "rephrase": "Where does Anna Berg come from?",
            "loc": "nq question: where is Rome",
            "loc_ans": "Italy",
            "portability": {"New Question": "Which country?", "New Answer": "Norway"},
        }
    ],
    "counterfact_nested": [
        {
            "requested_rewrite": {
                "prompt": "{} was born in",
                "subject": "Anna Berg",
                "target_new": {"str": "Oslo"},
                "target_true": {"str": "Paris"},
            },
            "paraphrase_prompts": ["The birth place of Anna Berg is"],
            "neighborhood_prompts": ["Marie Lund was born in"],
        }
    ],
    "retained": [{"prompt": "Rome is in", "ground_truth": "Italy", "subject": "Rome", "relation": "country"}],
}


class DataFiles:
    """Files of edits, facts and texts."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "target").mkdir(parents=True)

    def attempt(self, number: int, chance: random.Random) -> Trial:
        shape = chance.choice(sorted(RECORDS))
        records = mutated(RECORDS[shape] * 3, chance)
        suffix = chance.choice((".json", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".json.gz", ".parquet"))
        path = self.folder / "target" / f"data{number}{suffix}"
        path.write_bytes(self._content(records, suffix, chance))
        options = {}
        for name in ("shape", "size", "invalid", "rephrasings", "part"):
            if chance.random() < 0.1:
                options[name] = written_out(some_value(chance))

        def call() -> None:
            if shape == "retained":
                data.retained(path)
            elif suffix == ".txt":
                data.text(path)
            else:
                sections(data.load(path, **options))

        return Trial(
            call,
            lambda: path.read_bytes(),
            lambda: files_below(self.folder, self.folder / "target"),
            f"{path.name} {shape} {shown(options)} {shown(records)}",
        )

    @staticmethod
    def _content(records: Any, suffix: str, chance: random.Random) -> bytes:
        if suffix == ".parquet":
            content = _parquet(records, chance)
        elif suffix in (".csv", ".tsv"):
            rows = [row for row in records if isinstance(row, dict)] if isinstance(records, list) else []
            names = sorted({str(name) for row in rows for name in row}) or ["prompt"]
            table = io.StringIO()
            writer = csv.writer(table, delimiter="\t" if suffix == ".tsv" else ",")
            writer.writerow(names)
            for row in rows:
                cells = (row.get(name) for name in names)
                writer.writerow([c if isinstance(c, str) else as_json(c) for c in cells])
            content = table.getvalue().encode("utf-8", "surrogatepass")
        elif suffix == ".jsonl":
            lines = records if isinstance(records, list) else [records]
            content = "".join(as_json(line) + "\n" for line in lines).encode()
        else:
            content = as_json(records).encode()
        if chance.random() < 0.25:
            content = damaged_bytes(content, chance)
        return gzip.compress(content) if suffix.endswith(".gz") else content


def _parquet(records: Any, chance: random.Random) -> bytes:
    """The records, or values of types that only Parquet has; JSON where a table cannot hold them."""
    odd = (b"bytes", datetime.date(2024, 1, 1), decimal.Decimal("1.5"), {"a": b"x"}, [None], float("nan"))
    if chance.random() < 0.3:
        records = [
            {**RECORDS["counterfact"][0], chance.choice(("prompt", "x", "subject")): chance.choice(odd)}
        ]
    file = io.BytesIO()
    try:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(records), file)
    except Exception:
        return as_json(records).encode()
    return file.getvalue()


# -- hyperparameters -------------------------------------------------------------------------------------

BOMBS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
    "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nlayers: [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n",
    "a: &a [*a]\nlayers: *a\n",
    "layers: " + "[" * 3000 + "]" * 3000 + "\n",
    "{}: 1\n",
    "? [a, b]\n: 1\n",
    "layers: !!python/object/apply:os.getcwd []\n",
    "seed: " + "9" * 5000 + "\n",
    'alg_name: "\\ud800"\n',
    "alg_name: 2024-01-01\n",
    "- a\n- b\n",
    "&a a: *a\n",
    "<<: 1\nlayers: [1]\n",
    "layers: *nowhere\n",
    "%YAML 9.9\n---\na: 1\n",
    "a: 1\n---\nb: 2\n",
    "lr: .nan\n",
    "layers: 1:30:00\n",
)


class Hyperparameters:
    """YAML and JSON files, and dictionaries."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)
        names = [name for name in resources.shipped_hparams() if name.endswith("/tiny-llama")]
        self.files = {name.split("/")[0]: resources.hparams_path(name) for name in sorted(names)}

    def attempt(self, number: int, chance: random.Random) -> Trial:
        method = chance.choice(sorted(self.files))
        hparams_class = get_method(method).load_hparams()
        values = mutated(read_hparams(self.files[method]), chance)
        kind = chance.choice(("yaml", "yaml", "json", "dict", "override", "bytes", "bomb"))
        if kind in ("dict", "override"):
            values = written_out(values)
            what = f"{method} {kind} {shown(values)}"
            if kind == "dict" or not isinstance(values, dict):
                return Trial(lambda: self._use(hparams_class.from_dict(values)), what=what)
            whole = hparams_class.from_hparams(self.files[method])
            return Trial(lambda: self._use(whole.override(values)), whole.to_dict, what=what)
        path = self.folder / f"{number}.{'json' if kind == 'json' else 'yaml'}"
        if kind == "json":
            path.write_text(as_json(values), encoding="utf-8")
        elif kind == "bomb":
            text = self.files[method].read_text() if chance.random() < 0.5 else ""
            path.write_text(text + chance.choice(BOMBS), encoding="utf-8")
        else:
            text = yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")
            path.write_bytes(text if kind == "yaml" else damaged_bytes(text, chance))
        what = f"{method} {kind} {path.read_bytes()[-300:]!r} {shown(values)}"
        return Trial(lambda: self._use(hparams_class.from_hparams(path)), path.read_bytes, what=what)

    @staticmethod
    def _use(hparams: Any) -> None:
        """What every run does with its hyperparameters."""
        json.dumps(hparams.to_dict(), allow_nan=False).encode("utf-8")
        if hasattr(hparams, "check_inputs"):
            hparams.check_inputs()


# -- the command line ------------------------------------------------------------------------------------

SETTINGS = (
    *("edits=2", "batch_size=1", "seed=0", "method.layers=[1]", "method.v_lr=0.5", "method.seed=1"),
    *("data.skip=1", "data.part=all", "data.shape=knowedit", "evaluation.batch_size=8", "model=tiny-llama"),
    *("evaluation.fluency=1", "runner.checkpoints=[1]", "runner.order=file", "runner.guard_retained=0.9"),
    *("runner.save_every_edits=3", "data.retained=null", "model.path=null", "evaluation.ability=[]"),
    *("method.mom2_n_samples=400", "data.path=tiny-world", "runner.guard_every=5", "method.fp16=false"),
)
VALUES = (
    *(
        "nan",
        "inf",
        "-1",
        "1e400",
        "9" * 5000,
        "[",
        "[1,,2]",
        "{a:1}",
        "null",
        "",
        "'",
        '"x',
        "???",
        "${seed}",
    ),
    *("[1.5]", "[[1]]", "true", "../../x", "a=b", "\x00", "\ud800", "é", "${oc.env:HOME}", "[" * 300, "0x10"),
    *("[9999]", "1_000", "~", "\n", "a b", "${nowhere}", "${.a}", "$(id)", "{}", "[]", "1,2", "choice(1,2)"),
)
METHOD_NAMES = ("memit", "rome", "fine", "alphaedit", "pnke", "nmke", "kne", "ft", "lasting", "easyedit", "x")


class Overrides:
    """Arguments of ``easyedit-neuron``; a run that would begin is a success (``_edit`` is replaced)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "target"
        self.results.mkdir(parents=True)

    def attempt(self, number: int, chance: random.Random) -> Trial:
        out = self.results / str(number)
        arguments = ["model=tiny-llama", "data=tiny-world", f"method={chance.choice(METHOD_NAMES[:9])}"]
        arguments += [f"output_dir={out}", "runner.quiet=true", "runner.report=false", "edits=2"]
        for _ in range(chance.choice((1, 1, 2))):
            name, _, value = chance.choice(SETTINGS).partition("=")
            action = chance.randrange(8)
            if action == 0:
                name = chance.choice(
                    (name[:-1], name + "x", f"+{name}", f"~{name}", name.upper(), "", "é", "@")
                )
            elif action == 1:
                value = chance.choice(TEXTS)
            elif action == 2:
                arguments.append(chance.choice(("method=" + chance.choice(METHOD_NAMES), "--bad", "-m", "x")))
            else:
                value = chance.choice(VALUES)
            arguments.append(f"{name}={value}" if chance.random() < 0.97 else name)
        if chance.random() < 0.1:
            arguments.append(f"run={chance.choice(('../../x', '/x', 'a/b', '..', '.', '~', 'a b'))}")
            arguments.remove(f"output_dir={out}")
        arguments = [text.encode("utf-8", "replace").decode()[:6000].replace("\0", "?") for text in arguments]
        return Trial(
            lambda: command(main, arguments),
            around=lambda: files_below(self.folder, self.results, self.folder / "here"),
            what=" ".join(arguments[2:]),
        )
