"""Stand-ins for packages that are not installed, handed only to EasyEdit and only while it is being imported.

EasyEdit's modules import multimodal and API packages at their top even where they edit text. A stand-in lets
such an import pass; what EasyEdit then keeps of it raises a :class:`HostError` naming the package as soon as
it is called.
"""

import importlib.abc
import importlib.machinery
import sys
import types

from ..errors import HostError

#: packages that EasyEdit (14cea82) imports at the top of its modules and does not need for editing text
OPTIONAL_PACKAGES = frozenset(
    [
        "PIL",
        "accelerate",
        "av",
        "cv2",
        "datasets",
        "decord",
        "einops",
        "fairscale",
        "higher",
        "hydra",
        "iopath",
        "matplotlib",
        "openai",
        "pandas",
        "peft",
        "qwen_vl_utils",
        "rouge",
        "seaborn",
        "sentence_transformers",
        "timm",
        "torchvision",
        "zhipuai",
    ]
)

_IMPORT_MACHINERY = ("importlib", "importlib._bootstrap", "importlib._bootstrap_external")


class _Switch:
    """Whether stand-ins may be called: true while EasyEdit's modules run."""

    importing = False


class _AbsentMeta(type):
    """Attributes are stand-ins again; a call passes a decorated function through, or fails after the
    import."""

    def __getattr__(cls, name: str):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return absent(f"{cls.__dict__.get('_absent_name', cls.__name__)}.{name}")

    def __call__(cls, *args, **kwargs):
        if not _Switch.importing:
            name = next(c.__dict__["_absent_name"] for c in cls.__mro__ if "_absent_name" in c.__dict__)
            root = name.split(".")[0]
            raise HostError(
                f"EasyEdit wants {name}, but the package {root!r} was not installed when easyeditor was imported; "
                f"install {root} and start again"
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


def absent(name: str) -> type:
    """A stand-in for ``name`` (dotted): a class, so that EasyEdit may derive from it, name it in a type or
    decorate with it."""
    return _AbsentMeta(name.rpartition(".")[2], (), {"_absent_name": name})


class AbsentModule(types.ModuleType):
    """A stand-in for a module; every public attribute is a stand-in."""

    __path__: list = []

    def __getattr__(self, name: str):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        value = absent(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last in ``sys.meta_path`` during the import of EasyEdit, so that an installed package is always
    preferred.

    It answers only imports written in EasyEdit's own files: a third package that tries ``import pandas``
    meanwhile must find what it would find otherwise.
    """

    def __init__(self, forced=()):
        self.forced = frozenset(forced)
        self.used: set[str] = set()

    def find_spec(self, fullname, path=None, target=None):
        root = fullname.partition(".")[0]
        known = root in self.forced or root in OPTIONAL_PACKAGES
        if (
            not known
            or not (root == fullname or isinstance(sys.modules.get(root), AbsentModule))
            or not _asked_by_easyedit()
        ):
            return None
        self.used.add(root)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        return AbsentModule(spec.name)

    def exec_module(self, module):
        """Nothing to run."""

    def __enter__(self):
        if self.forced:
            sys.meta_path.insert(0, _Forced(self))
        sys.meta_path.append(self)
        _Switch.importing = True
        return self

    def __exit__(self, *error):
        """No stand-in is left for others to import: EasyEdit keeps the only references."""
        _Switch.importing = False
        sys.meta_path[:] = [
            f for f in sys.meta_path if f is not self and getattr(f, "finder", None) is not self
        ]
        for name in [name for name, module in list(sys.modules.items()) if isinstance(module, AbsentModule)]:
            del sys.modules[name]


class _Forced(importlib.abc.MetaPathFinder):
    """First in ``sys.meta_path`` for packages that are installed but broken."""

    def __init__(self, finder: AbsentFinder):
        self.finder = finder

    def find_spec(self, fullname, path=None, target=None):
        return (
            self.finder.find_spec(fullname, path, target)
            if fullname.partition(".")[0] in self.finder.forced
            else None
        )


def _asked_by_easyedit() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name not in _IMPORT_MACHINERY and name != __name__:
            return name == "easyeditor" or name.startswith("easyeditor.")
        frame = frame.f_back
    return False
