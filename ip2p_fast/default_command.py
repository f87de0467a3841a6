"""A group of commands of which `model` needs no word: `export MODEL` is `export model MODEL`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class ModelByDefault(TyperGroup):
    """Takes what is neither one of its commands nor --help for arguments of its command `model`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = args and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if known else ["model", *args])
