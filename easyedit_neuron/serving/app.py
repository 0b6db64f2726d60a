"""The web application: an OpenAI-compatible API and edits on one model."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request

from .. import __version__
from . import edits_api, openai_api, refusals
from .edited_model import EditedModel
from .owner import Owner


def build_app(edited: EditedModel, token: str, token_for_all: bool = False) -> FastAPI:
    """The application for a model; ``app.state.owner`` runs its requests.

    Args:
        edited: the model, which the application uses from one thread.
        token: what ``Authorization: Bearer`` must hold to make or undo an edit.
        token_for_all: the same for every other request but ``/health``.
    """
    owner = Owner()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        owner.close()

    def check_token(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = secrets.compare_digest(given.strip().encode(), token.encode())
        if scheme.lower() != "bearer" or not is_right:
            message = "this request needs the server's token: 'Authorization: Bearer TOKEN'"
            raise refusals.Refusal(401, message, code="invalid_api_key")

    # The pages of FastAPI's own documentation load scripts from elsewhere.
    app = FastAPI(
        title="easyedit-neuron", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.owner = owner
    refusals.install(app)
    reading = [Depends(check_token)] if token_for_all else []
    app.include_router(openai_api.router(edited, owner), dependencies=reading)
    app.include_router(edits_api.router(edited, owner, check_token), dependencies=reading)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": edited.name, "edits": len(edited.log)}

    return app
