"""The limits and options of a server, checked once when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadInput


@dataclass(frozen=True)
class Settings:
    """
    name              the model's name in the API
    aliases           further names that a request may ask for, such as those a client is fixed on
    max_n             images of one request and picture
    max_pictures      pictures of one request
    max_steps         sampling steps
    max_pixels        width x height of a picture, given or asked for
    max_output        pixels of all images of a reply together
    max_side          longer side of a picture, given or asked for
    max_resolution    longer side at which the model works; None: twice its own size
    max_body          bytes of a request's body
    max_bodies        requests that are received, checked or waited for at once; bounds memory together with max_body
    body_seconds      time to receive a body, and to take each part of a reply
    default_deadline  seconds after which an edit is given up, where the request names none
    max_deadline      largest deadline that a request may name
    api_keys          keys of which a request must name one; none: no key is asked for
    cors_origins      origins whose pages may call the server; none: CORS is off
    provenance        write into PNGs which model made them
    safety_checker    "module:function", called with (pictures, prompt); what it returns, unless None, is why it refuses
    """

    name: str = "pocket"
    aliases: tuple[str, ...] = ()
    max_n: int = 10
    max_pictures: int = 4
    max_steps: int = 100
    max_pixels: int = 16_000_000
    max_output: int = 64_000_000
    max_side: int = 8192
    max_resolution: int | None = None
    max_body: int = 32_000_000
    max_bodies: int = 128
    body_seconds: float = 30.0
    default_deadline: float = 300.0
    max_deadline: float = 3600.0
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    provenance: bool = False
    safety_checker: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
                raise BadInput(f"{name} is {value}: more than 0 is needed")
        if any(not key.strip() or not key.isascii() or not key.isprintable() for key in self.api_keys):
            raise BadInput("an API key is empty or has characters that a header cannot carry: use printable ASCII")
