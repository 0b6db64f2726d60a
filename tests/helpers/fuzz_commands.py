"""Damaged arguments of the subcommands, folders of models, chat templates, and files that settings name."""

import copy
import random
import shlex
import shutil
from pathlib import Path

import yaml

from easyedit_neuron.arch.chat import chat_tokenizer
from easyedit_neuron.bench.records import Source, left_out
from easyedit_neuron.cli import main
from easyedit_neuron.cli.commands import bench, tune
from easyedit_neuron.editlog import EditLog
from easyedit_neuron.evaluation.answers import answers
from easyedit_neuron.export import export_sparse
from easyedit_neuron.masks.generic import FixedOptions, read_indices
from easyedit_neuron.statistics.names import read_names
from easyedit_neuron.statistics.text import Texts
from helpers.chats import CHAT, LLAMA2
from helpers.contract import fresh
from helpers.editlogs import edited
from helpers.fuzz_folders import Folders
from helpers.fuzz_values import RECORDS, VALUES, shown
from helpers.fuzzing import Trial, command, files_below
from helpers.mutations import TEXTS, as_json, damage_folder, damaged_bytes, mutated

KNE = dict(alg_name="KNE", model_name="set by --model", layers=[1], num_steps=2, attribution_steps=2, lr=0.01)


def saved_model(folder: Path) -> Path:
    """A tiny llama and its tokenizer as a folder."""
    model, tok = fresh("llama")
    tok.chat_template = CHAT
    model.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


# -- arguments of subcommands ------------------------------------------------------------------------------

COMMANDS = (
    *("log RUN --json", "log RUN --verify", "undo RUN 1 --out OUT", "undo RUN 1 3 --out OUT --device cpu"),
    *("replay RUN --upto 2 --out OUT", "replay RUN --only 1-2 --out OUT", "replay RUN --without 2 --out OUT"),
    *("squash RUN --upto 2 --out OUT", "diff RUN RUN@1 --json", "ask RUN Rome --tokens 2 --no-chat"),
    *("export RUN --to peft --max-rank 2 --out OUT", "export RUN --to peft --energy 0.9 --out OUT"),
    *("export RUN --sizes --edits 1-2", "export RUN --to sparse --edits 1,3 --out OUT --model MODEL"),
    *("import SPARSE --out OUT --model MODEL", "import SPARSE --take-off --out OUT", "arch MODEL"),
    *("model list", "model get tiny-llama --wheel FILE"),
    "edit 'Anna Berg lives in' --subject 'Anna Berg' --target Oslo --hparams HPARAMS --model MODEL --log LOG",
    "edit Rome --subject Rome --target Oslo --hparams HPARAMS --model MODEL --log LOG --rephrase a --chat",
    "tune MODEL --method MEMIT --edits 2 --batch-size 1 --minutes 0.1 --text FILE --out OUT --part all",
    "bench lasting --out OUT --edits 2 --batch-size 1 --seeds 0 --neighbors 1 --left-out FILE --data a=FILE",
)
PATHS = ("FILE", "/dev/null/x", "HERE", ".", "..", "~", "nowhere", "RUN/log/log.json", "MODEL", "SPARSE", "")
ARGUMENTS = (
    "²",
    "1-",
    "-",
    "-1",
    "2-1",
    "1,,2",
    "٣",
    "--",
    "-x",
    "meta",
    "mps",
    "cuda:99",
    "0",
    "1e9",
    "RUN@²",
)


class Commands(Folders):
    """Subcommands on a valid run, with other arguments. What takes minutes is left out of tune and bench."""

    def __init__(self, folder: Path, monkeypatch):
        super().__init__(folder)
        self.model = saved_model(folder / "model")
        run = self.valid / "run"
        run.mkdir()
        _, _, _, log, records = edited("llama", "KNE", run, model_name=str(self.model))
        assert isinstance(log, EditLog)
        shutil.rmtree(run / "stats", ignore_errors=True)
        export_sparse(records, fresh("llama")[0], self.valid / "run" / "sparse")
        (run / "hparams.yaml").write_text(yaml.safe_dump(KNE))
        (run / "file.json").write_text(as_json(RECORDS["counterfact"]))

        def done(*_, **__):
            raise SystemExit(0)

        monkeypatch.setenv("EASYEDIT_NEURON_CACHE", str(folder / "cache"))  # without the real model
        monkeypatch.setattr(tune, "find_start", done)
        monkeypatch.setattr(bench, "run_cell", done)

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        run = self.copy("run", number)
        words = shlex.split(chance.choice(COMMANDS))
        for _ in range(chance.choice((1, 1, 2))):
            place = chance.randrange(1, len(words))
            other = chance.choice(chance.choice((VALUES, TEXTS, PATHS, ARGUMENTS)))
            action = chance.randrange(6)
            if action == 0:
                del words[place:]
                words.append(other)
            elif action == 1:
                words.insert(place, other)
            else:
                words[place] = other
        names = {"RUN": run, "OUT": run.parent / "out", "MODEL": self.model, "SPARSE": run / "sparse"}
        names |= {"HPARAMS": run / "hparams.yaml", "FILE": run / "file.json", "HERE": run, "LOG": run / "own"}
        arguments = [text.encode("utf-8", "replace").decode().replace("\0", "?") for text in words]
        for name, path in names.items():
            arguments = [text.replace(name, str(path)) for text in arguments]

        def state():
            return files_below(run), sorted(path.name for path in run.parent.iterdir())

        return Trial(lambda: command(main, arguments), state, lambda: self.around(number), " ".join(words))


# -- folders of models -------------------------------------------------------------------------------------


class Models(Folders):
    """A damaged folder of a model, which is looked at or edited."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        saved_model(self.valid / "model")

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        model = self.copy("model", number)
        names = ("config.json", "config.json", "model.safetensors", "model.safetensors", ".json")
        what = damage_folder(model, chance, (chance.choice(names),))
        file, log = model.parent / "hparams.yaml", model.parent / "log"
        file.write_text(yaml.safe_dump(KNE))
        edit = ["edit", "Anna Berg was born in", "--subject", "Anna Berg", "--target", "Oslo"]
        edit += ["--hparams", str(file), "--model", str(model), "--log", str(log)]
        edit += ["--chat"] if chance.random() < 0.3 else []
        arguments = chance.choice((edit, edit, ["arch", str(model)]))

        def state():
            return files_below(model), log.exists() and files_below(log)

        what = f"{arguments[0]}: {what}"
        return Trial(lambda: command(main, arguments), state, lambda: self.around(number), what)


# -- chat templates ----------------------------------------------------------------------------------------

HOSTILE = (
    "{% for a in range(999) %}{% for b in range(999) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 10000000 }}{{ messages[0]['content'] }}",
    "{{ messages[0]['content'] * 3 }}",
    "{{ raise_exception('no\nno' * 100000) }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages[0]['content'] }}",
    "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
    "{% include '/etc/passwd' %}{{ messages[0]['content'] }}",
    "{{ messages[1]['content'] }}",
    "{{ messages[0]['content'] }}\x00\x1b[31m",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}{{ messages[0]['content'] }}",
    "{{ messages[0]['content'][:5] }}",
    "{{ messages.pop() }}",
    "{%- set x = namespace(y=0) -%}" + "(" * 500,
    "",
)


class ChatTemplates:
    """Templates of a tokenizer: the whole way from the template to an answer."""

    def __init__(self):
        self.model, self.tok = fresh("llama")

    def attempt(self, number: int, chance: random.Random) -> Trial:
        tok = copy.deepcopy(self.tok)
        kind = chance.choice(("hostile", "bytes", "bytes", "value"))
        if kind == "hostile":
            template = chance.choice(HOSTILE)
        elif kind == "bytes":
            content = damaged_bytes(chance.choice((CHAT, LLAMA2)).encode(), chance)
            template = content.decode("utf-8", "replace")
        else:
            template = chance.choice(
                (3, [], {}, {"default": CHAT}, {"tool_use": CHAT}, b"x", 1.5, True, [CHAT])
            )

        def call() -> None:
            tok.chat_template = template
            chat = chat_tokenizer(tok)
            chat.pair_ids("Rome is in", "Italy"), chat.answer_ids("Italy"), chat.unfinished_ids("Rome")
            answers(self.model, chat, ["Rome is in"], 2)

        return Trial(call, what=f"{kind} {shown(template)[:200]}")


# -- files that settings name ------------------------------------------------------------------------------

INDICES = {"0": [1, 2], "1": [0, 5, 7]}
CASES = {"comment": "why", "dev": [1, 2, 3]}


class NamedFiles:
    """Lists of neurons, texts of the statistics, names, and the records of the bench."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True)

    def attempt(self, number: int, chance: random.Random) -> Trial:
        kind = chance.choice(("indices", "left out", "texts", "lines", "names", "bench"))
        path = (
            self.folder / f"{number}.{ {'texts': 'jsonl', 'lines': 'txt', 'names': 'txt'}.get(kind, 'json') }"
        )
        if kind in ("lines", "names"):
            content = b"Anna Berg was born in Oslo.\nRome\n\nMarie Lund\n"
        elif kind == "texts":
            rows = mutated([{"text": "Rome is old."}, "Oslo", {"content": "x"}], chance)
            content = "".join(
                as_json(row) + "\n" for row in (rows if isinstance(rows, list) else [rows])
            ).encode()
        else:
            tree = {"indices": INDICES, "left out": CASES}.get(kind)
            tree = tree or [dict(RECORDS["counterfact_nested"][0], case_id=number) for number in range(3)]
            content = as_json(mutated(tree, chance)).encode()
        if kind in ("lines", "names") or chance.random() < 0.2:
            content = damaged_bytes(content, chance)
        path.write_bytes(content)
        uses = {
            "indices": lambda: FixedOptions(indices=read_indices(str(path))),
            "left out": lambda: left_out(path),
            "texts": lambda: list(Texts(str(path), 2, 0, self.folder)),
            "lines": lambda: list(Texts(str(path), 2, 0, self.folder)),
            "names": lambda: read_names(path),
            "bench": lambda: Source("a", path, self.folder / "target", frozenset({1})).ordered(0),
        }
        return Trial(uses[kind], path.read_bytes, what=f"{kind} {content[:300]!r}")
