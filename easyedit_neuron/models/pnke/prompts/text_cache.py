"""Written texts on disk: complete JSON files ``{"about": key, "texts", "digest", "written_by"}``."""

import json
from pathlib import Path
from typing import Any

from ....errors import StateError
from ....utils.fingerprint import key_fingerprint, text_fingerprint
from ....utils.io import replacing
from ....utils.plain_trees import read_json


def cache_path(folder: str | Path, key: dict[str, Any]) -> Path:
    """File of a key: plain JSON values on which the texts depend, with a ``kind``."""
    return Path(folder).expanduser() / f"{key['kind']}-{key_fingerprint(key)}.json"


def read_texts(path: Path, key: dict[str, Any]) -> list[str] | None:
    """The texts of a key, or None if there is no file.

    Raises:
        StateError: the file is damaged, or its key is another one. The file stays as it is.
    """
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        stored_key, texts = content["about"], content["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("'texts' is not a list of texts")
        if content.get("digest") != text_fingerprint(texts):
            raise ValueError("the texts are not those that were written")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise StateError(
            f"{path}: not a readable file of prompts ({problem!r}); delete it to write them anew"
        ) from problem
    if stored_key != key:
        raise StateError(
            f"{path}: was made from {stored_key}, expected {key}; delete it to write the prompts anew"
        )
    return texts


def write_texts(path: Path, key: dict[str, Any], texts: list[str], written_by: Any) -> None:
    """Write the file of a key; ``written_by`` is a note for readers of the file and no part of the key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": key, "texts": texts, "digest": text_fingerprint(texts), "written_by": written_by}
    with replacing(path) as name:
        Path(name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
