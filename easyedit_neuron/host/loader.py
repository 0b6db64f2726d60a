"""Import EasyEdit for text models, with six packages instead of twenty-five.

EasyEdit is on no package index and has no packaging file; its users put a clone on ``PYTHONPATH``. Text
editing needs torch, transformers, omegaconf, scipy, scikit-learn and nltk. The multimodal and API packages
that its modules import at their top get stubs where they are not installed (``import_stubs``).
"""

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from ..errors import HostError

LOG = logging.getLogger(__name__)

HOME_VARIABLE = "EASYEDIT_HOME"
_REMEDY = (
    f"clone github.com/zjunlp/EasyEdit and set {HOME_VARIABLE} to the clone's folder (or put it on "
    "PYTHONPATH); or use the built-in editor: host='builtin'"
)


def find_easyeditor(home: str | Path | None = None) -> Path | None:
    """Where EasyEdit would be imported from, without importing it; None when nothing is named or importable.

    ``home`` is the folder of a clone; by default ``EASYEDIT_HOME``, then whatever ``import easyeditor``
    finds. ``HostError`` where the named folder holds no EasyEdit.
    """
    named = home or os.environ.get(HOME_VARIABLE)
    if named:
        folder = Path(named).expanduser().resolve()
        for candidate in (folder / "easyeditor", folder):
            if candidate.name == "easyeditor" and (candidate / "__init__.py").is_file():
                return candidate
        source = "home" if home else HOME_VARIABLE
        raise HostError(f"{source}={str(named)!r}: no easyeditor/__init__.py there; {_REMEDY}")
    loaded = sys.modules.get("easyeditor")
    if loaded is not None:
        return Path(loaded.__file__).parent if getattr(loaded, "__file__", None) else None
    try:
        spec = importlib.util.find_spec("easyeditor")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def import_easyeditor(home: str | Path | None = None, stub: Sequence[str] = ()) -> ModuleType:
    """Import ``easyeditor`` with our methods registered, and return the package.

    What EasyEdit does when it is imported still happens: it seeds the random generators of torch, numpy and
    Python with 42 and configures the root logger.

    Args:
        home: see ``find_easyeditor``.
        stub: further packages to replace by stubs although they are installed (a broken torchvision, say).

    Raises:
        HostError: the message says what to install or set.
    """
    from .import_stubs import import_stubs
    from .registration import register

    folder = find_easyeditor(home)
    package = sys.modules.get("easyeditor")
    if package is not None:
        place = Path(package.__file__).parent.resolve()
        if folder is not None and folder.resolve() != place:
            remedy = f"set {HOME_VARIABLE} before the first import"
            raise HostError(f"easyeditor is already imported, from {place}, not from {folder}; {remedy}")
    elif folder is None:
        raise HostError(f"EasyEdit is not installed: {_REMEDY}")
    else:
        _cache_package_checks()
        register()
        with import_stubs(stub) as replaced:
            package = _load(folder)
        if replaced:
            names = ", ".join(sorted(replaced))
            LOG.info("easyeditor imported without %s: text editing does not need them", names)
    register()
    return package


def _load(folder: Path) -> ModuleType:
    modules_before = set(sys.modules)
    spec = importlib.util.spec_from_file_location(
        "easyeditor", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["easyeditor"] = package
    try:
        spec.loader.exec_module(package)
    except Exception as error:
        for name in set(sys.modules) - modules_before:
            if name.partition(".")[0] == "easyeditor":
                del sys.modules[name]
        raise HostError(f"easyeditor in {folder} cannot be imported: {_remedy(error)}") from error
    return package


def _remedy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"the package {error.name!r} is missing; install it "
            "(pip install 'easyedit-neuron[easyedit]' brings what text editing needs)"
        )
    return (
        f"{type(error).__name__}: {error}. Where an installed package is broken, name it: "
        "import_easyeditor(stub=['<package>']); tested with EasyEdit at 14cea82 and transformers 5.5.4"
    )


def _cache_package_checks() -> None:
    """Let transformers remember which packages are installed before there are stubs that look installed."""
    from transformers.utils import import_utils

    for name in dir(import_utils):
        if name.startswith("is_") and name.endswith("_available"):
            try:
                getattr(import_utils, name)()
            except Exception as error:  # needs arguments, or its package is broken: nothing to remember
                LOG.debug("check %s: %s", name, error)
