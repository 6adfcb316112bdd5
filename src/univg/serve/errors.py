"""Say what the server refuses, in the shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from univg.errors import one_line

_LONGEST_MESSAGE = 600


class ApiError(Exception):
    """A request that is refused or has failed: an HTTP status and a message of one line. `app` catches it and replies
    with it.

    `code` and `param` are OpenAI's: a name for the cause, and which field of the request it lies in.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON of the reply.

        >>> ApiError(404, "no such model", code="model_not_found", param="model").body()["error"]["type"]
        'invalid_request_error'
        """
        # Escaped, as a message may quote the request: control characters, and halves of surrogate pairs,
        # which no reply could be encoded with.
        message = one_line(str(self)[:_LONGEST_MESSAGE])[:_LONGEST_MESSAGE]
        param = None if self.param is None else one_line(self.param[:_LONGEST_MESSAGE])[:_LONGEST_MESSAGE]
        return {"error": {"message": message, "type": self._type(), "param": param, "code": self.code}}

    def _type(self) -> str:
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"
