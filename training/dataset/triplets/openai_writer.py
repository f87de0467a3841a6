"""A language model behind an OpenAI-compatible endpoint as the writer of triplets."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput

from .endpoint import Endpoint
from .triplet import END, Triplet, completion, prompt
from .writers import Sampling

APIS = ("completions", "chat")
# what every server can take as a seed
_SEED_BITS = 31

_EXAMPLES = (
    Triplet("a photograph of a red car on a street", "make it snow", "a photograph of a red car on a snowy street"),
    Triplet(
        "portrait of a woman by Vermeer", "give her a pearl crown", "portrait of a woman with a pearl crown by Vermeer"
    ),
)
SYSTEM = (
    "You write training data for a model that edits pictures. The user gives the caption of a picture, followed by a"
    " line with ##. Think of one edit of that picture, of any kind: of an object, its colour or number, the place, the"
    " time, the weather, the style. Answer with exactly four lines and nothing else: the instruction for the edit; %%;"
    " the caption after the edit, in which only the words that the edit changes differ; END. Examples:\n\n"
    + "\n\n".join(f"{prompt(example.caption)}{completion(example)}" for example in _EXAMPLES)
)
"""What a chat model is told unless the caller says otherwise."""


def system_text(api: str, path: Path | None) -> str:
    """The system message: `SYSTEM`, or what the file holds; "" for none, as for completions.

    Raises:
        BadInput: an unknown API, a file that cannot be read, or one where no message is sent.
    """
    if api not in APIS:
        raise BadInput(f"there is no api {api!r}: choose one of {', '.join(APIS)}")
    if path is None:
        return SYSTEM if api == "chat" else ""
    if api != "chat":
        raise BadInput("a completion has no system message: --system goes with --api chat")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error


class OpenAIWriter:
    """Asks for one completion a caption, several at a time.

    completions: a model that was finetuned on triplets continues the prompt. chat: the prompt is the user's message,
    after `system` if that is not empty. What a seed gives is up to the server.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, sampling: Sampling, api: str, system: str, concurrency: int = 4
    ) -> None:
        self._endpoint, self._model, self._chat, self._system = endpoint, model, api == "chat", system
        self._concurrency = concurrency
        self._options: dict[str, Any] = {**vars(sampling), "stop": [END]}

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """
        Raises:
            BadInput: the endpoint fails.
        """
        pool = ThreadPoolExecutor(self._concurrency)
        try:
            return list(pool.map(self._written, captions, seeds))
        finally:
            pool.shutdown(cancel_futures=True)

    def _written(self, caption: str, seed: int) -> str:
        options = {"model": self._model, "seed": seed % (1 << _SEED_BITS), **self._options}
        if not self._chat:
            return self._endpoint.ask(
                lambda client: client.completions.create(prompt=prompt(caption), **options),
                lambda answer: answer.choices[0].text or "",
            )
        messages = [{"role": "system", "content": self._system}] if self._system else []
        messages.append({"role": "user", "content": prompt(caption)})
        return self._endpoint.ask(
            lambda client: client.chat.completions.create(messages=messages, **options),
            lambda answer: answer.choices[0].message.content or "",
        )
