"""The errors a caller can act on. The command line turns each into one line and exit status 2."""


class BadInput(ValueError):
    """An argument, picture or file that cannot be used. The message names the value, the limit and the way out."""


class ModelError(BadInput):
    """A checkpoint that cannot be used: absent, truncated, tampered with, or of another architecture."""


class MissingExtra(ImportError):
    """An optional dependency is absent. The message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f'{feature} needs an optional dependency: pip install "ip2p-fast[{extra}]"')


class Cancelled(Exception):
    """The edit was cancelled from its progress callback or by `StepLoop.cancel`."""
