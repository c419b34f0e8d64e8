"""Every error this package raises on purpose, in one tree with stable codes.

BackendError
├── BadRequest            request.invalid       the request cannot be understood
│   ├── RequestTooLarge   request.too_large
│   ├── Unauthorized      request.unauthorized
│   ├── Forbidden         request.forbidden     the caller may not do this
│   ├── NotFound          request.not_found     there is nothing of that name
│   ├── Conflict          request.conflict      its state does not allow it now
│   │   └── InProgress    request.in_progress   the same start is being worked on
│   └── IdempotencyKeyReused request.key_reused the key came with another request before
├── Busy                  backend.busy          too many ask for the same at once
├── ConfigError           config.unusable       the label config cannot be served
├── SettingsError         settings.invalid      an environment variable is wrong
├── ImageError            image.unusable        an image cannot be used
│   ├── ImageFetchError   image.fetch           it could not be downloaded
│   ├── ImageRefused      image.refused         its address is not allowed
│   ├── ImageTooLarge     image.too_large       over a size, pixel or time cap
│   └── ImageDecodeError  image.decode          its bytes are no readable image
├── ModelError            model.unusable        a network cannot be served
│   ├── ModelNotFound     model.not_found
│   └── CheckpointInvalid model.checkpoint      wrong keys, wrong checksum, unreadable
├── EngineError           engine.failed         the engine could not answer
│   ├── EngineUnavailable engine.unavailable    it is not there yet
│   └── OutOfMemory       engine.memory
├── TrainingError         training.failed       a network cannot be trained from what there is
├── ToolkitError      toolkit.failed        a class of the label-studio-ml toolkit has failed
├── LabelStudioError      label_studio.failed   Label Studio refused or did not answer
├── ServerError           server.failed         a backend that our client asked answers nonsense
│   └── ServerUnreachable server.unreachable    it does not answer at all
└── StoreError            store.failed          the records cannot be read or written
    └── SessionLost       session.lost          another trainer has the session, or it ended

An error's text is one sentence that says what is wrong and what to do about it. The class
docstring is the sentence used when none is given. Codes never change once released.
"""

from __future__ import annotations

from typing import ClassVar


class BackendError(Exception):
    """Something went wrong in the ML backend; see its log."""

    code: ClassVar[str] = "backend"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__ or self.code)

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0])


def error_of(code: str, message: str) -> BackendError | None:
    """Return the error of a code, as another process wrote it down; None for an unknown code."""
    classes = [BackendError]
    while classes:
        found = classes.pop()
        if found.code == code:
            return found(message)
        classes += found.__subclasses__()
    return None


class BadRequest(BackendError):
    """The request cannot be understood."""

    code = "request.invalid"


class RequestTooLarge(BadRequest):
    """The request is larger than MAX_REQUEST_MB; select fewer tasks at once."""

    code = "request.too_large"


class Unauthorized(BadRequest):
    """Wrong or missing user name and password (BASIC_AUTH_USER, BASIC_AUTH_PASS)."""

    code = "request.unauthorized"


class Forbidden(BadRequest):
    """Without a token, /api/v1 answers this machine only; `ml-backend tokens create` makes one."""

    code = "request.forbidden"


class NotFound(BadRequest):
    """There is nothing of that name; `ml-backend sessions list` shows what there is."""

    code = "request.not_found"


class Conflict(BadRequest):
    """Its state does not allow that now; look at it again."""

    code = "request.conflict"


class InProgress(Conflict):
    """The first request with this Idempotency-Key is being worked on; ask again in a moment."""

    code = "request.in_progress"

    def __init__(self, message: str | None = None, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IdempotencyKeyReused(BadRequest):
    """This Idempotency-Key came with another request before; give each start a new one."""

    code = "request.key_reused"


class Busy(BackendError):
    """Too many programs ask for that at once; try again later."""

    code = "backend.busy"


class ConfigError(BackendError):
    """The label config has no control that cell masks or classes can feed."""

    code = "config.unusable"


class SettingsError(BackendError):
    """A setting is invalid; `ml-backend config` shows all of them."""

    code = "settings.invalid"


class ImageError(BackendError):
    """The image cannot be used."""

    code = "image.unusable"


class ImageFetchError(ImageError):
    """The image could not be downloaded."""

    code = "image.fetch"


class ImageRefused(ImageError):
    """The image's address is not allowed."""

    code = "image.refused"


class ImageTooLarge(ImageError):
    """The image is over a size, pixel or time cap."""

    code = "image.too_large"


class ImageDecodeError(ImageError):
    """The bytes are no readable image."""

    code = "image.decode"


class ModelError(BackendError):
    """The model cannot be served."""

    code = "model.unusable"


class ModelNotFound(ModelError):
    """There is no such model; `ml-backend doctor` lists those that can be served."""

    code = "model.not_found"


class CheckpointInvalid(ModelError):
    """The checkpoint is damaged or belongs to another architecture."""

    code = "model.checkpoint"


class EngineError(BackendError):
    """The engine could not answer."""

    code = "engine.failed"


class EngineUnavailable(EngineError):
    """The engine is starting or has stopped; try again in a moment."""

    code = "engine.unavailable"


class OutOfMemory(EngineError):
    """The device ran out of memory."""

    code = "engine.memory"


class TrainingError(BackendError):
    """The network cannot be trained from what has been annotated; see the session's report."""

    code = "training.failed"


class ToolkitError(BackendError):
    """The class that TOOLKIT_MODEL names has failed; the log has the details."""

    code = "toolkit.failed"


class LabelStudioError(BackendError):
    """Label Studio refused the request or did not answer."""

    code = "label_studio.failed"

    def __init__(self, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status  # of its answer; None when there was no answer


class ServerError(BackendError):
    """The server that was asked does not answer as an ML backend does; check its address."""

    code = "server.failed"


class ServerUnreachable(ServerError):
    """The server that was asked does not answer; start it or name another (ML_BACKEND_URL)."""

    code = "server.unreachable"


class StoreError(BackendError):
    """The records cannot be read or written."""

    code = "store.failed"


class SessionLost(StoreError):
    """Another trainer has taken over the session, or it has ended; stop working on it."""

    code = "session.lost"
