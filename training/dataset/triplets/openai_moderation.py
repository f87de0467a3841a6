"""An OpenAI-compatible moderations endpoint as the moderator of triplets."""

from __future__ import annotations

from collections.abc import Sequence

from .endpoint import Endpoint, Pace
from .writing import Moderator

_PATH = "/moderations"


def moderator_at(address: str, pace: Pace) -> Moderator:
    """A moderator that refuses texts of which the endpoint flags any; `address` with or without /moderations.

    Raises:
        BadInput: an address that is no URL; and, from the moderator, an endpoint that fails.
    """
    endpoint = Endpoint(address.rstrip("/").removesuffix(_PATH), pace)

    def refused(texts: Sequence[str]) -> bool:
        return endpoint.ask(
            lambda client: client.moderations.create(input=list(texts)),
            lambda answer: any([bool(result.flagged) for result in answer.results]),
        )

    return refused
