"""InstructPix2Pix: give it a picture and an instruction, get the edited picture.

>>> from ip2p_fast import Editor
>>> Editor.from_pretrained("pocket").edit("scene.png", "make it night").images[0].save("night.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .editor import Editor as Editor
    from .editor import EditRequest as EditRequest
    from .editor import EditResult as EditResult
    from .errors import BadInput as BadInput
    from .errors import Cancelled as Cancelled
    from .errors import MissingExtra as MissingExtra
    from .errors import ModelError as ModelError

_HOME = {
    **dict.fromkeys(("Editor", "EditRequest", "EditResult"), ".editor"),
    **dict.fromkeys(("BadInput", "Cancelled", "MissingExtra", "ModelError"), ".errors"),
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that the command line starts at once."""
    if name in _HOME:
        return getattr(import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'ip2p_fast' has no attribute {name!r}")
