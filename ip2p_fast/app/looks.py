"""The page's theme: quiet colours, and fonts of the system, so that nothing is loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr


def theme() -> gr.themes.Base:
    sans = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    return gr.themes.Base(primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=sans, font_mono=mono).set(
        body_background_fill="#f7f8fa",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
    )


def style() -> str:
    """The CSS on top of the theme."""
    return Path(__file__).with_name("style.css").read_text(encoding="utf-8")
