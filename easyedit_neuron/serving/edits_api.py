"""``/edits``: make an edit while the model is served, list edits, take one back."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends

from ..errors import EditError, NeuronEditError
from .edited_model import Change, EditedModel
from .owner import Owner
from .refusals import Refusal
from .requests import EditBody


def router(edited: EditedModel, owner: Owner, check_token: Callable[..., Any]) -> APIRouter:
    """The routes for a model, which ``owner`` runs; those that write depend on ``check_token``."""
    routes, writing = APIRouter(prefix="/edits"), [Depends(check_token)]

    @routes.post("", status_code=201, dependencies=writing)
    async def make(body: EditBody) -> dict[str, Any]:
        def edit() -> Change:
            try:
                beside = body.texts("rephrase"), body.texts("neighbours")
                return edited.edit(body.prompt, body.subject, body.target_new, *beside)
            except EditError as problem:  # well formed, and this model cannot learn it
                raise Refusal(422, str(problem)) from None
            except NeuronEditError as problem:
                raise Refusal(400, str(problem)) from None

        change = await owner.change(edit)
        return edited.describe(change.number) | _asked(change)

    @routes.get("")
    async def list_edits() -> dict[str, Any]:
        return {"object": "list", "data": await owner.change(edited.edits)}

    @routes.get("/{number}")
    async def show(number: int) -> dict[str, Any]:
        return await owner.change(lambda: edited.describe(_existing(edited, number)))

    @routes.delete("/{number}", dependencies=writing)
    async def take_back(number: int) -> dict[str, Any]:
        def undo() -> Change:
            if not edited.describe(_existing(edited, number))["in_weights"]:
                raise Refusal(409, f"edit {number} is not in the weights: it was taken back before", "id")
            return edited.undo(number)

        change = await owner.change(undo)
        return edited.describe(number) | {"undone_by": change.number} | _asked(change)

    return routes


def _existing(edited: EditedModel, number: int) -> int:
    if not edited.has_edit(number):
        raise Refusal(404, f"there is no edit {number}; GET /edits lists them", "id")
    return number


def _asked(change: Change) -> dict[str, Any]:
    return {"asked": [asdict(asked) for asked in change.asked], "seconds": round(change.seconds, 3)}
