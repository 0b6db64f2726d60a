"""Edit ten facts of the shipped world, one after the other, and look at what became of them.

    python examples/edit_facts.py                                    EasyEdit's editor if EasyEdit can be imported, else the built-in one
    EASYEDIT_NEURON_HOST=builtin python examples/edit_facts.py       the built-in one
"""

from easyedit_neuron import BaseEditor, NMKEHyperParams, data
from easyedit_neuron.evaluation import summarize


def main(edits: int = 10) -> None:
    """Edit and print means of EasyEdit's metrics before and after."""
    hparams = NMKEHyperParams.from_hparams("NMKE/tiny-llama")
    editor = BaseEditor.from_hparams(hparams)
    requests = data.load("tiny-world", size=edits)
    metrics, _, _ = editor.edit_requests(requests, sequential_edit=True)
    print(f"{type(editor).__module__}: {edits} edits")
    for phase in ("pre", "post"):
        print(phase, summarize(metrics, phase))


if __name__ == "__main__":
    main()
