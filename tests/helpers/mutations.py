"""Damaged values, texts and files for the fuzz test: each is made from a valid one by a seeded generator."""

import gzip
import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

DEPTH = 3000
"""Levels of nesting that no reader of ours goes through by recursion."""
_DEEP, _DIGITS = "\u0001deep\u0001", "\u0001digits\u0001"
_RAW_TEXTS = {json.dumps(_DEEP): "[" * DEPTH + "]" * DEPTH, json.dumps(_DIGITS): "9" * 5000}
NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, -1e308, 5e-324, 0.5, -0.0)
NOT_FINITE = (math.nan, math.inf, -math.inf)
TEXTS = (
    *("", " ", "\n", "\x00", "\x1b[31mred", "\ud800", "\u202e", "e\u0301", "{}", "{", "%s", "NaN", "1e999"),
    *("../../escaped", "/escaped", "..", "a" * 20_000, "null", "🙂" * 50, "_", "true", "-1", "0x10"),
)
CONTAINERS = ((), {"a": None}, [None], [[]], {"": ""}, {"tensor": "tensor0"}, [{"a": [1]}])


def some_value(chance: random.Random) -> Any:
    """A value of any kind; deep nesting and long numbers stand as marks that ``as_json`` writes out."""
    kinds = ((None, True, False), NUMBERS, NOT_FINITE, TEXTS, CONTAINERS, (_DEEP, _DIGITS))
    value = chance.choice(chance.choice(kinds))
    return list(value) if isinstance(value, tuple) else json.loads(json.dumps(value))


def written_out(value: Any) -> Any:
    """A tree with its marks replaced by what they stand for."""
    if isinstance(value, dict):
        return {key: written_out(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(written_out(item) for item in value)
    if isinstance(value, str) and value == _DEEP:
        nested: list = []
        for _ in range(DEPTH):
            nested = [nested]
        return nested
    return 10**5000 if isinstance(value, str) and value == _DIGITS else value


def as_json(tree: Any, **options: Any) -> str:
    """JSON text of a tree, with what its marks stand for."""
    text = json.dumps(tree, **options)
    for mark, raw in _RAW_TEXTS.items():
        text = text.replace(mark, raw)
    return text


def mutated(tree: Any, chance: random.Random) -> Any:
    """A copy of a tree of plain values with one to three changes somewhere in it."""
    root = [_copied(tree)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(root))
        container, key = chance.choice(places)
        _change(container, key, places, chance)
    return root[0]


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(value) for key, value in tree.items()}
    return [_copied(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


def _places(container: Any):
    for key in list(container) if isinstance(container, dict) else range(len(container)):
        yield container, key
        if isinstance(container[key], (dict, list)):
            yield from _places(container[key])


def _change(container: Any, key: Any, places: list, chance: random.Random) -> None:
    value = container[key]
    actions = ["replace", "replace", "other type", "wrap", "swap", "nudge", "nudge"]
    actions += ["drop", "rename"] if isinstance(container, dict) else []
    actions += ["repeat", "cut"] if isinstance(value, list) else []
    action = chance.choice(actions)
    if action == "drop":
        del container[key]
    elif action == "rename":
        container[chance.choice((f"{key}x", "", "../x", "tensor", "\ud800"))] = container.pop(key)
    elif action == "other type":
        container[key] = [] if value is None else str(value) if not isinstance(value, str) else len(value)
    elif action == "wrap":
        container[key] = chance.choice(([value], {"value": value}, [value, value]))
    elif action == "swap":
        other, other_key = chance.choice(places)
        if other_key in other if isinstance(other, dict) else other_key < len(other):
            container[key] = _copied(other[other_key])
    elif action == "repeat":
        container[key] = value * chance.choice((2, 3))
    elif action == "cut":
        container[key] = value[: len(value) // 2]
    elif action == "nudge":
        container[key] = _nudged(value, chance)
    else:
        container[key] = some_value(chance)


def _nudged(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return chance.choice((value + 1, -value, value * 10, value // 3 if value == value else value))
    if isinstance(value, str):
        return chance.choice((value[1:], value[:-1], value.upper(), value + "x", f" {value} ", value[::-1]))
    return some_value(chance)


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """A file's bytes cut, flipped, doubled, or with something put in."""
    place, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    action = chance.randrange(9)
    if action == 0:
        return content[:place]
    if action == 1:
        return content[:place] + content[end:]
    if action == 2:
        return content[:end] + content[place:]
    if action == 3:
        return b""
    if action == 4:
        return gzip.compress(content)[: chance.choice((20, 10**9))]
    if action == 5:
        other = chance.choice(
            (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\r\n", b'"', b"}", b"\x1f\x8b", b"PAR1")
        )
        return content[:place] + other + content[place:]
    flipped = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 4, 40))):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def damage_text_file(path: Path, chance: random.Random) -> None:
    """Change values in a file of JSON, JSON Lines, or their bytes."""
    if chance.random() < 0.25:
        path.write_bytes(damaged_bytes(path.read_bytes(), chance))
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        trees = mutated([json.loads(line) for line in text.split("\n") if line], chance)
        lines = trees if isinstance(trees, list) else [trees]
        changed = "".join(as_json(line) + "\n" for line in lines)
    else:
        changed = as_json(mutated(json.loads(text), chance))
    path.write_text(changed, encoding="utf-8")


def damage_tensor_file(path: Path, chance: random.Random) -> None:
    """Change tensors or metadata of a safetensors file, or its bytes."""
    if chance.random() < 0.3:
        path.write_bytes(damaged_bytes(path.read_bytes(), chance))
        return
    with safe_open(path, "pt") as handle:
        metadata = dict(handle.metadata() or {})
        tensors = {name: handle.get_tensor(name).clone() for name in sorted(handle.keys())}
    if metadata and (not tensors or chance.random() < 0.5):
        name = chance.choice(sorted(metadata))
        try:
            metadata[name] = as_json(mutated(json.loads(metadata[name]), chance))
        except ValueError:  # a plain text
            metadata[name] = str(mutated(metadata[name], chance))
        metadata[name] = metadata[name].encode("utf-8", "replace").decode()
    elif tensors:
        _change_tensor(tensors, chance.choice(sorted(tensors)), chance)
    path.unlink()  # readers may have mapped the file
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata or None)


def _change_tensor(tensors: dict[str, torch.Tensor], name: str, chance: random.Random) -> None:
    tensor = tensors[name]
    action = chance.randrange(8)
    if action == 0:
        del tensors[name]
    elif action == 1:
        tensors[f"{name}x"] = tensors.pop(name)
    elif action == 2:
        tensors[name] = tensor.to(chance.choice((torch.float16, torch.float64, torch.int64, torch.bool)))
    elif action == 3:
        tensors[name] = tensor.reshape(-1)[: max(tensor.numel() // 2, 1)].clone()
    elif action == 4:
        tensors[name] = tensor.new_empty(chance.choice(((0,), (0, 3), (1, 1, 1)))).clone()
    elif tensor.numel():
        number = chance.choice((math.nan, math.inf, 1e30, -1, 5))
        kind = tensor.dtype if tensor.is_floating_point() else torch.float32
        changed = tensor.to(kind).reshape(-1)
        changed[chance.randrange(len(changed))] = number
        tensors[name] = (
            changed.reshape(tensor.shape).nan_to_num().to(tensor.dtype)
            if (not tensor.is_floating_point())
            else changed.reshape(tensor.shape)
        )


def damage_folder(folder: Path, chance: random.Random, names: tuple[str, ...] = ()) -> str:
    """Damage one file below a folder (of those names, if any are given); says which and how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chosen = [path for path in files if path.name in names or path.suffix in names] if names else files
    path = chance.choice(chosen or files)
    where = str(path.relative_to(folder))
    action = chance.random()
    if action < 0.04:
        path.unlink()
        return f"{where}: removed"
    if action < 0.07:
        path.unlink()
        path.mkdir()
        return f"{where}: a folder"
    if action < 0.10:
        other = chance.choice(files)
        if other != path:
            shutil.copyfile(other, path)
        return f"{where}: the content of {other.name}"
    if path.suffix == ".safetensors":
        damage_tensor_file(path, chance)
    elif path.suffix in (".json", ".jsonl"):
        damage_text_file(path, chance)
    else:
        path.write_bytes(damaged_bytes(path.read_bytes(), chance))
    return f"{where}: changed"
