"""The token rows of the search for z*: contexts with the new object, the KL prompt, preserved prompts."""

from dataclasses import dataclass

import torch

from ..arch.tokens import encode, subject_last_index, target_token_ids, token_ids
from ..attribution import TargetTokens
from ..edits.request import EditRequest
from ..errors import RequestError
from .preservation import PreservedPrompt


@dataclass(frozen=True)
class ZPrompts:
    """R rows of n requests: per request c contexts (the bare prompt first) and the KL prompt, request-major.

    After them come the preserved prompts of all requests.

    Attributes:
        targets: the rows, and an entry for every object token in the loss.
        request: [R] index of the request (0..n-1).
        lookup: [R] index of the subject's last token, where z* is added.
        share: float64, weight of each target entry in the request's mean over contexts (or over its preserved
            prompts with an object) of the mean over target tokens.
        kl_row: [n] rows of the KL prompts.
        preserved_row: [p] rows of the preserved prompts without an object.
        contexts: c.
    """

    targets: TargetTokens
    request: torch.Tensor
    lookup: torch.Tensor
    share: torch.Tensor
    kl_row: torch.Tensor
    preserved_row: torch.Tensor
    contexts: int

    @property
    def start(self) -> torch.Tensor:
        """[R] the first position that the search changes or reads."""
        return self.lookup.scatter_reduce(0, self.targets.owner, self.targets.position, "amin")

    @property
    def bare_row(self) -> torch.Tensor:
        """[n] rows of the bare prompts."""
        return torch.arange(len(self.kl_row), device=self.lookup.device) * (self.contexts + 1)

    @property
    def context_rows(self) -> torch.Tensor:
        """[n, c] rows of the contexts."""
        return self.bare_row[:, None] + torch.arange(self.contexts, device=self.lookup.device)


@dataclass
class _Row:
    """One row before padding."""

    request: int
    text: str
    lookup: int
    prompt_end: int
    extra: list[int]  # token ids appended to the text
    targets: list[tuple[int, int, float]]  # (position, token id, share)


def z_prompts(
    tok,
    requests: list[EditRequest],
    contexts: list[str],
    kl_prompt: str,
    device,
    preserved: list[list[PreservedPrompt]] | None = None,
    retokenise: bool = False,
) -> ZPrompts:
    """Tokenise the rows of a batch.

    Args:
        tok: tokenizer; each text is tokenised by itself, and the target's token ids are appended.
        requests: n edits.
        contexts: flat list of c context templates, the bare ``"{}"`` first.
        kl_prompt: template of the KL prompt.
        device: where the tensors go.
        preserved: per request other prompts of its subject (``preservation.preserved_prompts``).
        retokenise: as EasyEdit: decode all but the last token of the target and tokenise that text again
            with the prompt; the labels are at the row's last positions, whatever tokens are there.

    Raises:
        RequestError: a subject that is not where its prompt says.
    """
    rows: list[_Row] = []
    for number, request in enumerate(requests):
        target = target_token_ids(tok, request.target_new, alone=retokenise)
        share = 1.0 / (len(target) * len(contexts))
        for context in contexts:
            # Replaced, not formatted: the prompt itself holds the subject's '{}'.
            row = _row(tok, number, request, context.replace("{}", request.prompt))
            first = row.prompt_end
            if retokenise:
                row.text += tok.decode(target[:-1])
                first = len(token_ids(tok, row.text)) - len(target)
            else:
                row.extra = target[:-1]
            row.targets = [(first + i, token, share) for i, token in enumerate(target)]
            rows.append(row)
        rows.append(_row(tok, number, request, kl_prompt))
    without_object = []
    for number, (request, prompts) in enumerate(zip(requests, preserved or ())):
        with_object = sum(prompt.target is not None for prompt in prompts)
        for prompt in prompts:
            row = _row(tok, number, request, prompt.template)
            if prompt.target is None:
                without_object.append(len(rows))
            else:
                target = target_token_ids(tok, prompt.target)
                share = 1.0 / (len(target) * with_object)
                row.extra = target[:-1]
                row.targets = [(row.prompt_end + i, token, share) for i, token in enumerate(target)]
            rows.append(row)
    return _padded(tok, rows, without_object, len(requests), len(contexts), device)


def _row(tok, number: int, request: EditRequest, template: str) -> _Row:
    text = template.format(request.subject)
    lookup, end = subject_last_index(tok, template, request.subject), len(token_ids(tok, text)) - 1
    if lookup > end:
        raise RequestError(
            f"request {request.index}: subject {request.subject!r} is not where its prompt says"
        )
    return _Row(number, text, lookup, end, [], [])


def _padded(tok, rows: list[_Row], without_object: list[int], n: int, c: int, device) -> ZPrompts:
    entries = [
        (number, position, token) for number, row in enumerate(rows) for position, token, _ in row.targets
    ]
    shares = [share for row in rows for *_, share in row.targets]
    owner, position, ids = torch.tensor(entries, device=device).unbind(1)
    batch = encode(tok, [row.text for row in rows], device, [row.extra for row in rows])
    prompt_end = torch.tensor([row.prompt_end for row in rows], device=device)
    return ZPrompts(
        TargetTokens(batch, prompt_end, owner, position, ids),
        torch.tensor([row.request for row in rows], device=device),
        torch.tensor([row.lookup for row in rows], device=device),
        torch.tensor(shares, dtype=torch.float64, device=device),
        torch.arange(1, n + 1, device=device) * (c + 1) - 1,
        torch.tensor(without_object, dtype=torch.int64, device=device),
        c,
    )
