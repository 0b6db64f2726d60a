"""Damaged folders: states of runs, logs of edits, exports, statistics, and what the report reads."""

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from easyedit_neuron.cli import main
from easyedit_neuron.editlog import EditLog, replay, squash, undo
from easyedit_neuron.editlog.files import ENTRIES_FILE, file_digest
from easyedit_neuron.errors import NeuronEditError
from easyedit_neuron.export import export_peft, export_sparse
from easyedit_neuron.export.checkpoint import import_edits
from easyedit_neuron.export.side_file import NAME as SIDE_FILE
from easyedit_neuron.export.sparse import apply_sparse
from easyedit_neuron.lifelong import checkpoint
from easyedit_neuron.report import __main__ as report
from easyedit_neuron.report import figures
from easyedit_neuron.utils.fingerprint import tensors_fingerprint
from easyedit_neuron.utils.plain_trees import parse_json
from helpers.contract import fresh, settings
from helpers.edit_cases import bits_of, weights_of
from helpers.editing import REQUESTS, make_hparams
from helpers.editlogs import edited
from helpers.fuzzing import Trial, command, files_below
from helpers.lifelong_runs import make_world, start
from helpers.mutations import as_json, damage_folder
from helpers.run_folders import run_folder


def resealed(path: Path, renewed: Callable[[str], str]) -> str:
    """Renew the digests in a text file, where the damage lets it be read; says whether."""
    try:
        path.write_text(renewed(path.read_text()))
    except Exception:
        return "not resealed"
    return "resealed"


class Folders:
    """Copies of valid folders, each damaged in its own place; ``around`` is everything beside the copy."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.valid = folder / "valid"
        self.valid.mkdir(parents=True)
        (folder / "beside").mkdir()
        (folder / "beside" / "000001.safetensors").write_text("somebody else's")

    def copy(self, name: str, number: int) -> Path:
        """A copy of a valid folder at ``target/NUMBER/run``."""
        place = self.folder / "target" / str(number)
        shutil.copytree(self.valid / name, place / "run")
        return place / "run"

    def around(self, number: int) -> dict[str, str]:
        return files_below(self.folder, self.folder / "target" / str(number), self.folder / "stats")

    def forget(self, number: int) -> None:
        """Remove the copies of earlier inputs."""
        if number:
            shutil.rmtree(self.folder / "target", ignore_errors=True)


# -- states of runs ----------------------------------------------------------------------------------------

SHORT = {"edits": 6, "checkpoints": [3], "save_every_edits": 1, "measure": {"fluency": 0, "perplexity": 1}}
STOPS = {"fail_at": "Marie Lund was born"}  # edit 5 of the dummy


class States(Folders):
    """Run folders that are continued: of the dummy, and of methods that keep a state of their own."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.world = make_world(folder / "world", 8)
        self.runs = {}
        for method, changes in (("Dummy", {}), ("AlphaEdit", {}), ("MEMIT", {"accumulate_keys": True})):
            if method != "Dummy":
                changes = {**changes, "stats_dir": str(folder / "stats")}
            options = {**SHORT, "method": method, "changes": changes}
            self._begin(folder / "valid" / method, options)
            self.runs[method] = options

    def _begin(self, out: Path, options: dict) -> None:
        """A run that has ended after its state of four edits."""
        saved = checkpoint.StateFolder.save

        def save(self, tree):
            saved(self, tree)
            if tree["position"] == 4:
                raise NeuronEditError("enough")

        checkpoint.StateFolder.save = save
        try:
            start(self.world, out, **options)
        except NeuronEditError as problem:
            assert str(problem) == "enough", problem
        finally:
            checkpoint.StateFolder.save = saved
        assert list(out.glob("state/*/state.json")) and not (out / "summary.json").exists()

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        method = chance.choice(sorted(self.runs))
        run = self.copy(method, number)
        names = ("state.json", "state.json", "tensors.safetensors", "run.json", "before.json", "edits.jsonl")
        what = damage_folder(
            run, chance, chance.choice((names[:3], names, ("entries.jsonl", "log.json"), ()))
        )
        if what.startswith("state") and chance.random() < 0.7:
            what += f", {self._resealed(run)}"
        return Trial(
            lambda: start(self.world, run, **self.runs[method]),
            lambda: files_below(run),
            lambda: self.around(number),
            f"{method} {what}",
        )

    @staticmethod
    def _resealed(run: Path) -> str:
        """Renew the digests of a state, as somebody would who means it."""
        for state in run.glob("state/*/state.json"):
            try:
                content = json.loads(state.read_text())
                tensors = load_file(state.with_name(checkpoint.TENSORS))
                items = sorted(tensors.items(), key=checkpoint._packing_order)
                content["fingerprint"] = tensors_fingerprint(items)
                content["digest"] = checkpoint._digest(content)
                state.write_text(as_json(content))
            except Exception:
                return "not resealed"
        return "resealed"


# -- logs of edits -----------------------------------------------------------------------------------------

LOG_USES = ("open", "verify", "undo", "replay", "squash", "log", "log --json", "undo --out", "diff", "export")


class Logs(Folders):
    """Logs of edits, read by the functions and by the commands."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.models = {}
        for variant in ("KNE", "MEMIT"):
            base, tok = fresh("llama")
            place = folder / "models" / variant
            base.save_pretrained(place)
            tok.save_pretrained(place)
            run = self.valid / variant
            run.mkdir()
            model, tok, _, log, _ = edited("llama", variant, run, model_name=str(place))
            undo(model, log, 2)
            shutil.rmtree(run / "stats", ignore_errors=True)
            self.models[variant] = base, copy.deepcopy(model), tok

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        variant = chance.choice(sorted(self.models))
        run, use = self.copy(variant, number), chance.choice(LOG_USES)
        names = ("entries.jsonl", "entries.jsonl", "log.json", ".safetensors")
        what = damage_folder(run, chance, (chance.choice(names),))
        if chance.random() < 0.7:
            what += f", {self._resealed(run / 'log')}"
        base, model, tok = self.models[variant]
        model = copy.deepcopy(base if use in ("replay",) else model)

        def state():
            return bits_of(model), files_below(run), sorted(path.name for path in run.parent.iterdir())

        call = lambda: self._use(use, run, model, tok, run.parent)  # noqa: E731
        return Trial(call, state, lambda: self.around(number), f"{variant} {use}: {what}")

    @staticmethod
    def _use(use: str, run: Path, model, tok, place: Path) -> None:
        out = str(place / "out")
        commands = {
            "log": ["log", str(run)],
            "log --json": ["log", str(run), "--json", "--verify"],
            "undo --out": ["undo", str(run), "1", "--out", out],
            "diff": ["diff", str(run), str(run), "--to-entry", "1"],
            "export": ["export", str(run), "--to", "sparse", "--out", out],
        }
        if use in commands:
            return command(main, commands[use])
        log = EditLog(run / "log")
        if use == "verify":
            log.verify()
        elif use == "undo":
            undo(model, log, 3)
        elif use == "replay":
            replay(log, model, tok=None)
        elif use == "squash":
            squash(log, place / "squashed")
        else:
            list(log)
        return None

    @staticmethod
    def _resealed(log: Path) -> str:
        """Renew the digests of the files in the entries."""

        def renewed(text: str) -> str:
            entries = [json.loads(line) for line in text.splitlines()]
            for entry in entries:
                file = log / f"{entry['id']:06d}.safetensors"
                if "file" in entry and file.is_file():
                    entry |= {"sha256": file_digest(file), "bytes": file.stat().st_size}
            return "".join(as_json(entry) + "\n" for entry in entries)

        return resealed(log / ENTRIES_FILE, renewed)


# -- exports -----------------------------------------------------------------------------------------------


class Exports(Folders):
    """Adapters and sparse files, put into a model and imported."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.base, self.tok = fresh("qwen2")
        model = copy.deepcopy(self.base)
        from helpers.contract import apply

        hparams = settings("KNE", folder)
        records = [apply(model, self.tok, [request], hparams)[2] for request in REQUESTS[:2]]
        self.edited_weights = weights_of(model)
        export_peft(records, self.base, self.valid / "peft")
        export_sparse(records, self.base, self.valid / "sparse")

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        kind, use = (
            chance.choice(("peft", "sparse", "sparse")),
            chance.choice(("apply", "import", "take off")),
        )
        run = self.copy(kind, number)
        names = (SIDE_FILE, SIDE_FILE, ".safetensors", "adapter_config.json")
        what = damage_folder(run, chance, (chance.choice(names),))
        if chance.random() < 0.75:
            what += f", {self._resealed(run)}"
        model = copy.deepcopy(self.base)
        if use == "take off":
            with torch.no_grad():
                for name, value in self.edited_weights.items():
                    model.get_parameter(name).copy_(value)

        def state():
            return bits_of(model), files_below(run), sorted(path.name for path in run.parent.iterdir())

        def call() -> None:
            if use == "import":
                import_edits(run, model, None, run.parent / "out")
            else:
                apply_sparse(model, run, take_off=use == "take off")

        return Trial(call, state, lambda: self.around(number), f"{kind} {use}: {what}")

    @staticmethod
    def _resealed(run: Path) -> str:
        def renewed(text: str) -> str:
            content = json.loads(text)
            content["files"] = {name: file_digest(run / name) for name in content["files"]}
            return as_json(content)

        return resealed(run / SIDE_FILE, renewed)


# -- statistics --------------------------------------------------------------------------------------------


class Statistics(Folders):
    """The cache of covariances, of a model that is edited by MEMIT or NMKE."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.base, self.tok = fresh("llama")
        self.place = self.valid / "cache"
        self.place.mkdir()
        for method in ("MEMIT", "AlphaEdit"):
            self._edit(copy.deepcopy(self.base), self.place, method)

    def _edit(self, model, place: Path, method: str) -> None:
        from helpers.editing import apply

        hparams = make_hparams(method, place, v_num_grad_steps=1)
        apply(model, self.tok, REQUESTS[:1], hparams)

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        place, method = self.copy("cache", number), chance.choice(("MEMIT", "AlphaEdit"))
        what = damage_folder(place, chance, (".safetensors",))
        if chance.random() < 0.5:
            what += f", {self._resealed(place)}"
        (place / "corpus.txt").write_bytes((self.place / "corpus.txt").read_bytes())
        model = copy.deepcopy(self.base)

        return Trial(
            lambda: self._edit(model, place, method),
            lambda: bits_of(model),
            lambda: self.around(number),
            f"{method} {what}",
        )

    @staticmethod
    def _resealed(place: Path) -> str:
        from safetensors.torch import save_file

        for path in place.rglob("*.safetensors"):
            try:
                with safe_open(path, "pt") as handle:
                    metadata = dict(handle.metadata() or {})
                tensors = {name: value.clone() for name, value in load_file(path).items()}
                parse_json(metadata["about"])
                metadata["digest"] = tensors_fingerprint(sorted(tensors.items()))
                path.unlink()
                save_file(tensors, path, metadata)
            except Exception:
                return "not resealed"
        return "resealed"


# -- reports -----------------------------------------------------------------------------------------------


class Reports(Folders):
    """``python -m easyedit_neuron.report`` on folders of runs, mostly without pictures, which take long."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.with_pictures = figures.available
        run_folder(self.valid / "finished", edits=30, answers=3)
        run_folder(self.valid / "unfinished", "MEMIT", edits=30, done=12, failed=(3,))

    def attempt(self, number: int, chance: random.Random) -> Trial:
        self.forget(number)
        run = self.copy(chance.choice(("finished", "unfinished")), number)
        other = run.parent / "other"
        shutil.copytree(self.valid / "finished", other)
        what = damage_folder(run, chance, chance.choice(((".json", ".jsonl"), ("checkpoints.jsonl",), ())))
        out = run.parent / "out"
        arguments = [
            str(run),
            *([str(other)] if chance.random() < 0.3 else []),
            "--out",
            str(out / "page.html"),
        ]
        if chance.random() < 0.5:
            arguments += ["--table", str(out / chance.choice(("table.csv", "table.md", "table.txt", "t")))]
        draws = chance.random() < 0.1

        def call() -> None:
            figures.available = self.with_pictures if draws else lambda: False
            try:
                command(_report, arguments)
            finally:
                figures.available = self.with_pictures

        return Trial(call, lambda: files_below(run), lambda: self.around(number), what)


def _report(arguments: list[str]) -> int:
    code = report.main(arguments)
    import sys

    sys.stderr.seek(0)
    sys.stderr.truncate()  # the line that says that there are no plots
    return code
