"""`ip2p-fast dataset`: make the data that InstructPix2Pix is trained on. The commands are in modules of their own."""

from __future__ import annotations

import typer

from .demo_cli import demo
from .forms.cli import convert, inspect
from .pairs.cli import calibrate, controls, pairs
from .plan.cli import plan
from .triplets.cli import finetune_writer, triplets

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _dataset() -> None:
    """Make training data: triplets of caption, instruction and edited caption, and pairs of pictures."""


app.command("demo")(demo)
app.command("triplets")(triplets)
app.command("finetune-writer")(finetune_writer)
app.command("pairs")(pairs)
app.command("calibrate")(calibrate)
app.command("controls")(controls)
app.command("plan")(plan)
app.command("convert")(convert)
app.command("inspect")(inspect)
