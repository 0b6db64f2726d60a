"""Errors of the server, in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}``."""

import logging
import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import NeuronEditError

LOG = logging.getLogger(__name__)
NOT_SUPPORTED = "is not supported by this server"


class Refusal(Exception):
    """An answer other than 200: HTTP status, message, the field that it is about, a code."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def error_content(message: str, status: int, param: str | None = None, code: str | None = None) -> dict:
    """The body of an error."""
    kinds = {401: "authentication_error", 404: "not_found_error", 409: "conflict_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer_of(problem: Exception) -> dict[str, Any]:
    """``status`` and ``content`` of what an exception of a request is answered with."""
    if isinstance(problem, Refusal):
        status = problem.status
        return {
            "status_code": status,
            "content": error_content(str(problem), status, problem.param, problem.code),
        }
    if isinstance(problem, NeuronEditError):
        return {"status_code": 400, "content": error_content(str(problem), 400)}
    LOG.error("a request failed", exc_info=problem)
    message = f"the request failed ({type(problem).__name__}); the server's messages say more"
    return {"status_code": 500, "content": error_content(message, 500)}


def install(app: FastAPI) -> None:
    """Let an application answer every error in this form."""

    async def refuse(_: Request, problem: Exception) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if getattr(problem, "status", 0) == 401 else None
        return JSONResponse(**answer_of(problem), headers=headers)

    async def refuse_body(_: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, RequestValidationError)
        message, param = describe(problem.errors())
        return JSONResponse(error_content(message, 400, param), 400)

    async def refuse_route(_: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, HTTPException)
        return JSONResponse(error_content(str(problem.detail), problem.status_code), problem.status_code)

    for kind in (Refusal, NeuronEditError, Exception):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(RequestValidationError, refuse_body)
    app.add_exception_handler(HTTPException, refuse_route)


def describe(errors: Any) -> tuple[str, str | None]:
    """The first thing that is wrong with a body: a sentence, and the name of its field."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return "the body is not JSON", None
    place = _place(first)
    name = ".".join(map(str, place)) or None
    if name is None:
        return "the body must be a JSON object, with 'Content-Type: application/json'", None
    if first["type"] == "extra_forbidden":
        return f"field {name!r}: {NOT_SUPPORTED}, with this value; leave it out", name
    if first["type"] == "missing":
        return f"field {name!r}: is missing", name
    within = (error["msg"] for error in errors if _place(error)[: len(place)] == place)
    wrong = dict.fromkeys(message[:1].lower() + message[1:] for message in within)
    return f"field {name!r}: {', or '.join(wrong)}", name


def _place(error: Any) -> list[int | str]:
    """Names and numbers that lead to a value, without pydantic's names for the choices of a union."""
    is_choice = re.compile(r".*\[.*|str|TextPart|constrained-.*").fullmatch
    return [part for part in error["loc"][1:] if isinstance(part, int) or not is_choice(part)]
