"""Written texts on disk, each file under a key of everything that the texts depend on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....errors import StateError
from ....utils.fingerprint import key_fingerprint
from ....utils.io import replacing


class TextCache:
    """JSON files ``{"about": ..., "texts": [...], "written_by": ...}``; complete or not there at all.

    Args:
        folder: where they are; None: nothing is read or kept.
    """

    def __init__(self, folder: str | Path | None):
        self.folder = None if folder is None else Path(folder).expanduser()

    def texts(
        self,
        about: Callable[[], dict[str, Any]],
        make: Callable[[], list[str]],
        written_by: Callable[[], Any],
    ) -> list[str]:
        """The texts of a key, made if there is no file.

        Args:
            about: gives the key (plain JSON values with a ``kind``); not called without a folder, as
                fingerprints cost time.
            make: writes the texts.
            written_by: gives a note for the file that is no part of the key.

        Raises:
            StateError: the file is damaged, or was made from something else. It stays as it is.
        """
        if self.folder is None:
            return make()
        key = about()
        path = self.folder / f"{key['kind']}-{key_fingerprint(key)}.json"
        found = _read(path, key)
        if found is None:
            found = make()
            _write(path, {"about": key, "texts": found, "written_by": written_by()})
        return found


def _read(path: Path, about: dict[str, Any]) -> list[str] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        stored, texts = content["about"], content["texts"]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("'texts' is not a list of texts")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise StateError(
            f"{path}: not a readable file of prompts ({problem!r}); delete it to write them anew"
        ) from problem
    if stored != about:
        raise StateError(
            f"{path}: was made from {stored}, expected {about}; delete it to write the prompts anew"
        )
    return texts


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as name:
        Path(name).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
