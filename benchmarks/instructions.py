"""Instructions that a call of each CPU kernel executes, counted by valgrind's callgrind: times waver, counts do not.

    python -m ip2p_fast.benchmarks.instructions            compare with the stored counts
    python -m ip2p_fast.benchmarks.instructions --renew    store those of this build

Counts are of one compiler and one PyTorch: those of another say nothing of our code. paired_attention is not counted,
as its matrix products are PyTorch's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ip2p_fast.errors import BadInput

STORED = Path(__file__).resolve().with_name("instructions.json")
GROWTH = 0.05
"""More than this share above what is stored is a regression."""
ISAS = ("baseline", "avx2")
"""valgrind runs no AVX-512."""
_COUNTED = "IP2P_FAST_COUNTED"
_REQUESTS = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void stop(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


@dataclass(frozen=True)
class Counts:
    """built: what they depend on beside our code. calls: instructions by "kernel, instruction set"."""

    built: Mapping[str, str]
    calls: Mapping[str, int]


def count_instructions() -> Counts:
    """Runs every kernel once under callgrind, in a process of one thread.

    Raises BadInput where valgrind, a C compiler or the extension is absent, or the process fails.
    """
    for program in ("valgrind", "cc"):
        if shutil.which(program) is None:
            raise BadInput(f"{program} is not installed: instructions are counted with valgrind and a C compiler")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "requests.c").write_text(_REQUESTS)
        library = folder / "requests.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "requests.c"], check=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counts"]
        command += [sys.executable, "-m", __spec__.name if __spec__ else __name__]
        environment = {**os.environ, _COUNTED: str(library), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BadInput(f"counting failed: {' '.join(done.stderr.split())[-300:]}")
        calls = dict(sorted(_counted(path) for path in folder.glob("counts.*")))
    return Counts(json.loads(done.stdout.splitlines()[-1]), calls)


def stored() -> Counts:
    content = json.loads(STORED.read_text(encoding="utf-8"))
    return Counts(content["built"], content["calls"])


def grown(before: Counts, now: Counts) -> dict[str, float]:
    """The share by which each call that regressed has grown. Calls that are new have nothing to be compared with."""
    shares = {name: now.calls[name] / count - 1 for name, count in before.calls.items() if name in now.calls}
    return {name: share for name, share in shares.items() if share > GROWTH}


def _counted(path: Path) -> tuple[str, int]:
    text = path.read_text(encoding="utf-8")
    name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    assert name and total, path
    return name[1], int(total[1])


def _run_kernels(start: Callable[[], None], stop: Callable[[bytes], None]) -> dict[str, str]:
    """Each once untold, for what a first call sets up, and once counted."""
    import torch

    from ip2p_fast import _C

    from .kernels import CONTESTS

    for isa in ISAS:
        _C.set_isa(isa)
        for name, (make, (dtype, *shape)) in CONTESTS.items():
            ours = make(dtype, torch.device("cpu"), *shape).contenders["ours"]
            with torch.inference_mode():
                ours()
                start()
                ours()
                stop(f"{name}, {isa}".encode())
    return {"compiler": _C.build_info()["compiler"], "torch": torch.__version__}


def _main() -> None:
    if library := os.environ.get(_COUNTED):
        import ctypes

        requests = ctypes.CDLL(library)
        print(json.dumps(_run_kernels(requests.start, requests.stop)))
        return
    now = count_instructions()
    if "--renew" in sys.argv:
        content = {"built": now.built, "calls": now.calls}
        STORED.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, count in now.calls.items():
        before = stored().calls.get(name)
        print(f"{name}: {count:,}" + (f" ({count / before - 1:+.2%})" if before else ""))


if __name__ == "__main__":
    _main()
