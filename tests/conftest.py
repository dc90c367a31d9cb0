"""For all tests: no network, in child processes too; no notices of libraries; the data that only some machines have."""

import os
import runpy
import sys
from pathlib import Path

import pytest

# Python imports a file of this name whenever it starts: so child processes block the network as this process does.
_BLOCK = Path(__file__).parent / "blocked_network" / "sitecustomize.py"
runpy.run_path(str(_BLOCK))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_BLOCK.parent), os.environ.get("PYTHONPATH")]))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def covid_cxr():
    """The folder of real chest radiographs that lies beside some checkouts."""
    folder = SHARED / "data" / "covid-cxr"
    if not folder.is_dir():
        pytest.skip("the real radiographs are not on this machine")
    return folder


@pytest.fixture
def medlora_command():
    """The command line as a user starts it."""
    return [sys.executable, "-c", "from medlora.cli import main; main()"]
