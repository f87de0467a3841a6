"""The libraries' advice and bars, which would tear ours, switched off."""

from __future__ import annotations

import warnings


def quiet_libraries() -> None:
    """For this process: errors only from diffusers and transformers, none of their progress bars."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    # its new name for torch_dtype is unknown to the older versions that we support
    warnings.filterwarnings("ignore", message=".*torch_dtype", category=FutureWarning)
