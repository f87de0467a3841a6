"""The server on many machines: engines as replicas of a Ray Serve deployment, and one or more fronts before them.

A front checks requests and makes replies, as in one process; `Fleet` takes the engine's place in it. `app` is what
`serve run ip2p_fast.serving.ray:app` builds; `ip2p-fast serve --ray` keeps the front in its own process.
"""

from ...errors import MissingExtra

try:
    from ray import serve as _  # noqa: F401
except ImportError as error:
    raise MissingExtra("serving through Ray", "ray") from error

from .application import app, engines
from .fleet import Fleet

__all__ = ["Fleet", "app", "engines"]
