from .editor import BaseEditor

__all__ = ["BaseEditor"]
