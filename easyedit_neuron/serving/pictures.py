"""What an edit changed, as a picture: tokens at which added neurons respond, or the norm of each neuron's
change."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from ..edits.record import Delta, EditRecord, LayerDelta
from ..models.lasting.firing import LEAST_SHARE, Response
from ..report.figures import Plot, available, line_style, svg

MOST_NEURONS = 3
"""Neurons that are shown for a prompt: those of the edits that respond most."""


@dataclass(frozen=True)
class NeuronChanges(Plot):
    """Norm of the change of every neuron that an edit changes, by the neuron's number.

    ``series``: name of a parameter -> (numbers of neurons, norms of their changes).
    """

    series: dict[str, tuple[list[int], list[float]]]

    def draw(self, axes) -> None:
        for number, (name, (neurons, norms)) in enumerate(self.series.items()):
            style = line_style(number, number, 0) | {"linestyle": "none", "markersize": 3.6}
            axes.plot(neurons, norms, label=name, **style)
        axes.set_xlabel("neuron")
        axes.set_ylabel("norm of its change")
        axes.set_ylim(bottom=0)


def change_norms(delta: Delta) -> tuple[list[int], list[float]]:
    """Numbers of the neurons (or rows) that a change touches, and the norm of each one's vector."""
    if isinstance(delta, LayerDelta):
        neurons = delta.neurons
        keys = delta.key_factor.double().cpu()[neurons]
        values = delta.value_factor.double().cpu()
        return neurons.tolist(), (keys @ values.T).norm(dim=1).tolist()
    return delta.units.tolist(), delta.vectors.double().norm(dim=1).tolist()


def changes_picture(record: EditRecord) -> str:
    """An SVG of the norms, with a sentence on how many neurons changed; the sentence alone without
    matplotlib."""
    series = {name: change_norms(delta) for name, delta in record.deltas.items()}
    parts = [
        f"{_short(name)}: {len(neurons):,} of {_size(record.deltas[name]):,}"
        for name, (neurons, _) in series.items()
    ]
    note = f"<p class='note'>Neurons whose vectors changed: {html.escape('; '.join(parts))}.</p>"
    if not available():
        return note + "<p class='note'>A picture needs matplotlib: pip install 'easyedit-neuron[report]'</p>"
    named = {_short(name): points for name, points in series.items()}
    for name, delta in record.deltas.items():
        if isinstance(delta, LayerDelta) and delta.mask is not None:
            named |= _split(_short(name), named.pop(_short(name)), delta.mask.tolist())
    return note + svg(NeuronChanges("Norm of each neuron's change", named, size=(7.2, 2.9)), "changes")


def _split(name: str, points: tuple[list[int], list[float]], mask: list[bool]) -> dict:
    """Points of neurons in a mask, and of those outside of it that compensation has changed."""
    parts: dict[str, tuple[list[int], list[float]]] = {}
    for is_inside, label in ((True, "in the mask"), (False, "outside of it")):
        own = [(neuron, norm) for neuron, norm in zip(*points) if mask[neuron] is is_inside]
        if own:
            parts[f"{name}, {label}"] = [neuron for neuron, _ in own], [norm for _, norm in own]
    return parts


def firing_picture(prompts: Sequence[str], responses: Sequence[Sequence[Response]]) -> str:
    """Each prompt as its tokens, coloured by how strongly an edit's neuron responds there.

    ``responses``: for each prompt those of all neurons.
    """
    return "".join(_row(prompt, of_prompt) for prompt, of_prompt in zip(prompts, responses))


def _row(prompt: str, responses: Sequence[Response]) -> str:
    strongest = sorted(responses, key=lambda response: -max(map(abs, response.shares)))[:MOST_NEURONS]
    loud = [response for response in strongest if max(map(abs, response.shares)) >= LEAST_SHARE]
    if not loud:
        return f"<div class='tokens'><div class='row'>{_token(prompt, 0)}</div><span>silent</span></div>"
    rows = []
    for response in loud:
        tokens = "".join(map(_token, response.texts, response.shares))
        label = f"edit {response.edit}, {html.escape(response.subject)}"
        rows.append(f"<div class='tokens'><div class='row'>{tokens}</div><span>{label}</span></div>")
    return "".join(rows)


def _token(text: str, share: float) -> str:
    strength = min(abs(share), 1.0)
    number = f"<sub>{share:.2f}</sub>" if strength >= LEAST_SHARE else ""
    shown = html.escape(text).replace("\n", "↵")
    return f"<span class='token' style='--share:{strength:.3f}'>{shown}{number}</span>"


def _short(name: str) -> str:
    """The name of a parameter without what all have in common."""
    return name.removesuffix(".weight").removeprefix("model.").removeprefix("transformer.")


def _size(delta: Delta) -> int:
    return len(delta.key_factor) if isinstance(delta, LayerDelta) else delta.side
