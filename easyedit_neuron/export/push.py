"""An export on the Hugging Face Hub, by ``huggingface_hub``, which finds the token itself."""

from pathlib import Path

from ..errors import HostError, NeuronEditError
from ..utils.shown import count_edits, shown
from .side_file import read_side_file

LOGIN = "log in with 'hf auth login', or set HF_TOKEN"


def push(folder: str | Path, repo: str, public: bool = False) -> str:
    """Upload an export as one commit; the address of the repository, which is created if there is none.

    Args:
        folder: of ``export``, whole and undamaged.
        repo: ``name`` or ``organisation/name``.
        public: whether everyone may read it: a new repository is private without, and one that is public
            already is refused.

    Raises:
        StateError: not such a folder, or a damaged one; nothing is sent.
        NeuronEditError: no valid name of a repository, or a public one without ``public``.
        HostError: no token, no rights, or no connection.
    """
    folder, side_file = read_side_file(folder)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    message = f"{count_edits(len(side_file['edits']))} as {side_file['kind']}, by easyedit-neuron"
    try:
        name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        if not public and not api.repo_info(name).private:
            remedy = "--public says that everyone may read it, or name another repository"
            raise NeuronEditError(f"{name} is there already, and public: nothing was uploaded. {remedy}")
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except HFValidationError as problem:
        raise NeuronEditError(f"{shown(repo)} is no name of a repository: {problem}") from None
    except LocalTokenNotFoundError:
        raise HostError(f"the Hub asks for a token, and there is none: {LOGIN}") from None
    except HfHubHTTPError as problem:
        code = problem.response.status_code if problem.response is not None else None
        remedy = f"; {LOGIN}" if code in (401, 403) else ""
        raise HostError(f"the Hub refuses {repo}: {problem.server_message or problem}{remedy}") from None
    except _network_errors() as problem:  # offline mode too
        raise HostError(f"the Hub at {api.endpoint} cannot be reached: {problem}") from None
    return f"{api.endpoint}/{name}"


def _network_errors() -> tuple[type[Exception], ...]:
    """Of the library below huggingface_hub: httpx since 1.0, before that requests, whose errors are
    ``OSError``."""
    try:
        import httpx
    except ImportError:
        return (OSError,)
    return (OSError, httpx.HTTPError)
