"""The token rows on which z* is searched: every context of every request followed by the new object, and
prompts to keep."""

from dataclasses import dataclass

import torch

from ..arch.tokens import Batch, encode, subject_last_index, target_token_ids, token_ids
from ..edits.request import EditRequest
from ..errors import RequestError
from .preservation import Kept


@dataclass(frozen=True)
class TargetPrompts:
    """Rows of n requests, request-major: c contexts (the bare prompt first) with ``target[:-1]`` behind, then
    the KL prompt; behind all of them other prompts of the subjects: e with an object that is wanted there
    too, p whose answers are kept.

    Attributes:
        batch: the R = n (c + 1) + e + p rows, right-padded.
        owner: [R] number of the request (0..n-1).
        lookup: [R] index of the subject's last token.
        answer_row, answer_at, answer_id: [A] row, position and id of every target token to be predicted from
            that position.
        answer_share: [A] its weight in the request's mean over contexts (or over its e other prompts) of the
            mean over target tokens.
        kl_row: [n] the KL prompts' rows.
        prompt_end: [n, c] index of the last token before the target.
        kept_row: [p] rows of the kept prompts.
        kept_end: [p] index of their last token.
    """

    batch: Batch
    owner: torch.Tensor
    lookup: torch.Tensor
    answer_row: torch.Tensor
    answer_at: torch.Tensor
    answer_id: torch.Tensor
    answer_share: torch.Tensor
    kl_row: torch.Tensor
    prompt_end: torch.Tensor
    kept_row: torch.Tensor
    kept_end: torch.Tensor

    @property
    def start(self) -> torch.Tensor:
        """[R] the first position that the search changes or reads."""
        return self.lookup.scatter_reduce(0, self.answer_row, self.answer_at, "amin")

    @property
    def bare_row(self) -> torch.Tensor:
        """[n] the rows of the bare prompts."""
        contexts = self.prompt_end.shape[1]
        return torch.arange(len(self.kl_row), device=self.lookup.device) * (contexts + 1)

    @property
    def context_rows(self) -> torch.Tensor:
        """[n, c] the rows of the contexts."""
        return self.bare_row[:, None] + torch.arange(self.prompt_end.shape[1], device=self.lookup.device)


def target_prompts(
    tok,
    requests: list[EditRequest],
    contexts: list[str],
    kl_prompt: str,
    device,
    retokenise: bool = False,
    kept: list[list[Kept]] | None = None,
) -> TargetPrompts:
    """Tokenises the rows.

    Args:
        tok: tokenizer; each text is tokenised by itself, the target's ids are appended as they are.
        requests: n edits.
        contexts: flat list of c context templates, the bare ``"{}"`` first.
        kl_prompt: template of the KL prompt.
        device: where the tensors go.
        retokenise: EasyEdit's way: the target is tokenised alone, all but its last token decoded, and that
            text tokenised again together with the prompt; the labels stand at the row's last positions,
            wherever the target's tokens have gone.
        kept: per request other prompts of its subject (``kept.kept_prompts``).

    Raises:
        RequestError: a subject that is not where its prompt says.
    """
    texts, extra, lookup, owner, answers, ends = [], [], [], [], [], []
    for number, request in enumerate(requests):
        target = target_token_ids(tok, request.target_new, alone=retokenise)
        told = tok.decode(target[:-1]) if retokenise else ""
        # a context is applied by replacement, not by format: the prompt itself holds the subject's '{}'
        templates = [context.replace("{}", request.prompt) for context in contexts]
        for template in [*templates, kl_prompt]:
            row, last = len(texts), template is kl_prompt
            prompt = template.format(request.subject)
            end = len(token_ids(tok, prompt)) - 1
            texts.append(prompt if last else prompt + told)
            extra.append([] if last or retokenise else target[:-1])
            lookup.append(subject_last_index(tok, template, request.subject))
            owner.append(number)
            if lookup[-1] > end:
                raise RequestError(
                    f"request {request.index}: subject {request.subject!r} is not where its prompt says"
                )
            if not last:
                ends.append(end)
                share = 1.0 / (len(target) * len(contexts))
                first = len(token_ids(tok, texts[-1])) - len(target) if retokenise else end
                answers += [(row, first + i, token, share) for i, token in enumerate(target)]
    kept_row, kept_end = [], []
    for number, prompts in enumerate(kept or ()):
        wanted = sum(one.target is not None for one in prompts)
        for one in prompts:
            row, prompt = len(texts), one.template.format(requests[number].subject)
            end = len(token_ids(tok, prompt)) - 1
            target = [] if one.target is None else target_token_ids(tok, one.target)
            texts.append(prompt)
            extra.append(target[:-1])
            lookup.append(subject_last_index(tok, one.template, requests[number].subject))
            owner.append(number)
            answers += [(row, end + i, token, 1.0 / (len(target) * wanted)) for i, token in enumerate(target)]
            if one.target is None:
                kept_row.append(row)
                kept_end.append(end)
    at = {"device": device}
    rows, positions, ids, shares = zip(*answers)
    lookup, owner = torch.tensor(lookup, **at), torch.tensor(owner, **at)
    ends = torch.tensor(ends, **at).view(len(requests), len(contexts))
    kl_row = torch.arange(1, len(requests) + 1, **at) * (len(contexts) + 1) - 1
    rows, positions, ids = (torch.tensor(column, **at) for column in (rows, positions, ids))
    shares = torch.tensor(shares, dtype=torch.float64, **at)
    return TargetPrompts(
        encode(tok, texts, device, extra),
        owner,
        lookup,
        rows,
        positions,
        ids,
        shares,
        kl_row,
        ends,
        *(torch.tensor(column, dtype=torch.int64, **at) for column in (kept_row, kept_end)),
    )
