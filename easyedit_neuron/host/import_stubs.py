"""Stubs for packages that are not installed, given only to EasyEdit and only while it is being imported.

EasyEdit's modules import multimodal and API packages at their top even where they edit text. A stub lets
such an import pass; what EasyEdit then keeps of it raises a ``HostError`` naming the package as soon as it is
called.
"""

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterable, Iterator

from ..errors import HostError

_OPTIONAL_TEXT = """
PIL accelerate av cv2 datasets decord einops fairscale higher hydra iopath matplotlib openai pandas peft
qwen_vl_utils rouge seaborn sentence_transformers timm torchvision zhipuai
"""
OPTIONAL_PACKAGES = frozenset(_OPTIONAL_TEXT.split())
"""Packages that EasyEdit (14cea82) imports at the top of its modules and does not need for editing text."""

_IMPORT_MACHINERY = ("importlib", "importlib._bootstrap", "importlib._bootstrap_external")


class _State:
    """Whether EasyEdit is being imported: only then may stubs be called."""

    importing = False


class _StubClass(type):
    """Attributes are stubs again; a call leaves a decorated function as it is, or fails after the import."""

    def __getattr__(cls, name: str):
        _refuse_dunder(name)
        return _make_stub(f"{cls.__dict__.get('_stub_name', cls.__name__)}.{name}")

    def __call__(cls, *args, **kwargs):
        if not _State.importing:
            name = next(base.__dict__["_stub_name"] for base in cls.__mro__ if "_stub_name" in base.__dict__)
            package = name.split(".")[0]
            raise HostError(
                f"EasyEdit uses {name}, but the package {package!r} was not installed when easyeditor was "
                f"imported; install {package} and start again"
            )
        if len(args) == 1 and not kwargs and callable(args[0]):
            return args[0]
        return cls

    def __getitem__(cls, item):
        return cls

    def __or__(cls, other):
        return cls

    __ror__ = __or__

    def __iter__(cls):
        return iter(())


def _refuse_dunder(name: str) -> None:
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(name)


def _make_stub(name: str) -> type:
    """A class for the dotted ``name``: EasyEdit may derive from it, name it in a type or decorate with it."""
    return _StubClass(name.rpartition(".")[2], (), {"_stub_name": name})


class StubModule(types.ModuleType):
    """A module whose public attributes are all stubs."""

    __path__: list = []

    def __getattr__(self, name: str):
        _refuse_dunder(name)
        stub = _make_stub(f"{self.__name__}.{name}")
        setattr(self, name, stub)
        return stub


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stubs for imports written in EasyEdit's own files: a third package that tries ``import pandas``
    meanwhile must find what it would find otherwise."""

    def __init__(self, packages: Iterable[str], used: set[str]):
        self.packages, self.used = frozenset(packages), used

    def find_spec(self, fullname, path=None, target=None):
        package = fullname.partition(".")[0]
        if package not in self.packages or not _imported_by_easyedit():
            return None
        if package != fullname and not isinstance(sys.modules.get(package), StubModule):
            return None  # a missing submodule of an installed package
        self.used.add(package)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        return StubModule(spec.name)

    def exec_module(self, module):
        """Nothing to run."""


@contextlib.contextmanager
def import_stubs(forced: Iterable[str] = ()) -> Iterator[set[str]]:
    """Give stubs to imports of EasyEdit's files inside the block; yields the packages replaced so far.

    ``forced``: packages to replace although they are installed. Afterwards no stub is left for others to
    import: EasyEdit keeps the only references.
    """
    forced, used = frozenset(forced), set()
    first, last = _StubFinder(forced, used), _StubFinder(forced | OPTIONAL_PACKAGES, used)
    sys.meta_path.insert(0, first)
    sys.meta_path.append(last)
    _State.importing = True
    try:
        yield used
    finally:
        _State.importing = False
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in (first, last)]
        for name in [name for name, module in list(sys.modules.items()) if isinstance(module, StubModule)]:
            del sys.modules[name]


def _imported_by_easyedit() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name not in _IMPORT_MACHINERY and name != __name__:
            return name == "easyeditor" or name.startswith("easyeditor.")
        frame = frame.f_back
    return False
