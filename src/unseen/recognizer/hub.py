"""Download and upload models on the Hugging Face hub, with every failure as one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

from unseen.errors import RunError
from unseen.ground.hub import look_for_hub
from unseen.model.trained import TrainedModel
from unseen.recognizer.card import CardFields
from unseen.recognizer.names import FACTS, HUB_ID, PATTERNS
from unseen.recognizer.saving import save


def fetch(
    folder_or_id: Path | str,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Path | str | None = None,
    local_files_only: bool = False,
) -> Path:
    """A local folder itself, or the folder of the hub's files.

    Raises:
        RunError: wrong name, no network, or a problem of the repository, in one line.
    """
    if Path(folder_or_id).is_dir():
        return Path(folder_or_id)
    name = str(folder_or_id)
    if not HUB_ID.fullmatch(name):
        raise RunError("no such folder", where=name, hint="pass a saved folder, or OWNER/NAME on the hub")
    import huggingface_hub

    look_for_hub()
    try:
        found = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(PATTERNS),
            library_name="unseen",
        )
    except Exception as error:
        raise _hub_error(error, name) from None
    if not (Path(found) / FACTS).is_file():
        raise RunError(
            f"not an unseen model: it has no {FACTS}", where=name, hint="pass a repository that `unseen push` created"
        )
    return Path(found)


def push(
    model: TrainedModel,
    repo_id: str,
    private: bool,
    token: str | None,
    message: str,
    include_backbone: bool,
    include_references: bool,
    card: CardFields,
) -> str:
    """See :meth:`unseen.recognizer.recognizer.Recognizer.push_to_hub`."""
    import huggingface_hub

    if not HUB_ID.fullmatch(repo_id):
        raise RunError("not a repository name", where=repo_id, hint="use OWNER/NAME")
    token = token or huggingface_hub.get_token()
    if not token:
        raise RunError("not logged in to the hub", where=repo_id, hint="run `hf auth login`, or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as temporary:
        folder = save(model, Path(temporary) / "model", include_backbone, include_references, card)
        try:
            hub = huggingface_hub.HfApi(token=token)
            hub.create_repo(repo_id, private=private, exist_ok=True)
            done = hub.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=message,
                allow_patterns=list(PATTERNS),
                delete_patterns=list(PATTERNS),
            )
        except Exception as error:
            raise _hub_error(error, repo_id) from None
    return str(done.commit_url)


def _hub_error(error: Exception, name: str) -> Exception:
    """Turn a known failure of hub or network into one line; other errors pass."""
    from huggingface_hub import errors

    known: tuple[tuple[type[Exception], str, str], ...] = (
        (
            errors.GatedRepoError,
            "access needs the owner's approval",
            "request access on its page, then run `hf auth login`",
        ),
        (
            errors.RepositoryNotFoundError,
            "no such repository, or it is private",
            "fix the name, or run `hf auth login`",
        ),
        (errors.RevisionNotFoundError, "no such revision", "use one of its branches, tags or commits"),
        (errors.OfflineModeIsEnabled, "not in the local cache, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"),
        (
            errors.LocalEntryNotFoundError,
            "not in the local cache, and the hub is not reachable",
            "connect to the internet once",
        ),
        (errors.HFValidationError, "not a repository name", "use OWNER/NAME"),
        (errors.HfHubHTTPError, "the hub refused", "see its message"),
        (OSError, "the request failed", "see its message"),
    )
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    for kind, problem, hint in known:
        if isinstance(error, kind):
            return RunError(f"{problem}: {said}" if hint == "see its message" else problem, where=name, hint=hint)
    if type(error).__module__.split(".")[0] in ("httpx", "requests"):
        return RunError(f"the hub is not reachable: {said}", where=name, hint="try again later")
    return error
