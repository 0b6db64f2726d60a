"""Every error this package raises on purpose.

All of them are ``ValueError`` subclasses, so that a script written against EasyEdit's asserts can catch one
type; each message names the field or record that is wrong and what to do about it.
"""

LONGEST = 2000
"""Characters of a message. A value of a user's file may be longer; only a part of it belongs in there."""


class NeuronEditError(ValueError):
    """Base class: bad input or an impossible request, found before anything was changed.

    The message is one line of at most ``LONGEST`` characters; of a longer one the middle is left out, because
    the end has the remedy.
    """

    def __init__(self, message: object = ""):
        text = " ".join(filter(None, (line.strip() for line in str(message).splitlines())))
        if len(text) > LONGEST:
            text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 4 :]}"
        super().__init__(text)


class HparamsError(NeuronEditError):
    """A hyperparameter is unknown, missing, ill-typed or out of range."""


class RequestError(NeuronEditError):
    """An edit request is malformed (missing field, subject not in the prompt, empty target ...)."""


class ArchitectureError(NeuronEditError):
    """The model is of an unknown type, or a module named in the hyperparameters does not exist."""


class EditError(NeuronEditError):
    """A computed edit diverged or changed nothing that it should; the model was not written."""


class StateError(NeuronEditError):
    """The sequential state does not belong to the model's present weights."""


class StatisticsError(StateError):
    """A file of statistics is damaged or foreign, or cannot be written: every edit would meet it."""


class DataError(NeuronEditError):
    """A data file is missing, of an unknown shape, or one of its records is malformed."""


class MaskError(NeuronEditError):
    """A neuron mask is unknown, has the wrong shape, or an option of it is out of range."""


class HostError(NeuronEditError):
    """EasyEdit was asked for and cannot be used."""
