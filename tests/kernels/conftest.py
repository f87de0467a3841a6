import importlib

import pytest

from ip2p_fast.kernels import status


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    """Run the CPU kernels on one instruction set; skipped where the extension or the machine lacks it."""
    if status()["extension"] == "none":
        pytest.skip(f"no extension: {status()['why']}")
    extension = importlib.import_module("ip2p_fast._C")
    before = extension.build_info()["isa"]
    try:
        extension.set_isa(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    extension.set_isa(before)
