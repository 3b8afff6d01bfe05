"""Replies from an OpenAI-compatible endpoint, with the standard library alone."""

from __future__ import annotations

import base64
import dataclasses
import json
import mimetypes
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.model_judges import Chat

TRY_AGAIN = {408, 409, 429, 500, 502, 503, 504}
ATTEMPTS = 4


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A server that answers POST {url}/chat/completions.

    Attributes:
        url: up to and with its version, like http://localhost:8000/v1.
        model: as the server calls it.
        key_variable: the environment variable with the key; "" for none.
        max_tokens: of a reply.
        timeout_seconds: of one request.
        workers: requests at a time.
        pause_seconds: before the second attempt; doubled before each further one.
    """

    url: str
    model: str
    key_variable: str = ""
    max_tokens: int = 16
    timeout_seconds: float = 60.0
    workers: int = 4
    pause_seconds: float = 1.0

    def __call__(self, chats: Sequence[Chat]) -> list[str]:
        """The replies, in order.

        Raises:
            UserError: the endpoint can't be reached or turns the request down.
        """
        headers = {"Content-Type": "application/json"} | self._authorization()
        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            return list(pool.map(lambda chat: self._reply(chat, headers), chats))

    def _authorization(self) -> dict[str, str]:
        if not self.key_variable:
            return {}
        key = os.environ.get(self.key_variable)
        if not key:
            raise UserError(
                f"config.evaluate.endpoint.key_variable: ${self.key_variable} is not set"
            )
        return {"Authorization": f"Bearer {key}"}

    def _reply(self, chat: Chat, headers: dict[str, str]) -> str:
        body = {
            "model": self.model,
            "messages": [self._message(message) for message in chat],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        answer = self._post(json.dumps(body).encode(), headers)
        try:
            return str(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{self.url}: its reply has no choices[0].message.content") from error

    def _post(self, body: bytes, headers: dict[str, str]) -> Any:
        url = f"{self.url.rstrip('/')}/chat/completions"
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.pause_seconds * 2 ** (attempt - 1))
            request = urllib.request.Request(url, data=body, headers=headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=self.timeout_seconds) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                error.close()
                if error.code not in TRY_AGAIN:
                    break
            except (OSError, ValueError) as error:  # not reached, timed out, or no JSON
                reason = str(getattr(error, "reason", error))
        raise UserError(f"{url}: {reason}; see config.evaluate.endpoint")

    def _message(self, message: dict[str, Any]) -> dict[str, Any]:
        """Images as data URLs; a text alone as a string, which every server takes."""
        parts = [
            part if part["type"] == "text" else _image(part["path"]) for part in message["content"]
        ]
        if len(parts) == 1 and parts[0]["type"] == "text":
            return {"role": message["role"], "content": parts[0]["text"]}
        return {"role": message["role"], "content": parts}


def _image(path: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(path)[0] or "image/jpeg"
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
