"""The lines of README.md's service section, as they stand there, against a server."""

import base64
import io
import re
from pathlib import Path

from PIL import Image

OPTIONS = ("--model", "pocket")
README = Path(__file__).parents[2] / "README.md"


def test_the_client_of_the_readme_gets_a_picture(server, sample, tmp_path, monkeypatch):
    section = README.read_text().split("\n## As a service\n")[1]
    lines = re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]
    (tmp_path / "photo.png").write_bytes(sample)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(lines.replace("http://localhost:8000", server.url), found)
    picture = Image.open(io.BytesIO(base64.b64decode(found["reply"].data[0].b64_json)))
    assert picture.size == Image.open(io.BytesIO(sample)).size
