"""The command line and the package start fast and say what they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import medlora

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "monai", "pandas", "timm", "numpy", "lightning", "pydicom", "matplotlib")


@pytest.mark.parametrize(
    "code",
    [
        "import medlora",
        "import sys; sys.argv = ['medlora', '--help']; from medlora.cli import main; main()",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_imported(code):
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not imported & set(HEAVY)


def test_version(call):
    assert call("--version")[1] == f"medlora {medlora.__version__}\n"


@pytest.mark.parametrize("verb", ["doctor", "demo", "check", "train", "evaluate", "predict"])
def test_every_verb_explains_itself_and_has_the_common_options(call, verb):
    code, out, _ = call(verb, "--help")
    assert code == 0
    for option in ("--output", "--json", "--debug"):
        assert option in out


def test_typo_offers_the_nearest(call):
    code, _, err = call("trian")
    assert code == 2
    assert "train" in err


def test_doctor_names_the_default_backbone(answer):
    code, values = answer("doctor")
    assert code == 0
    assert values["backbones"][0]["name"] == "medlora-hybrid"
    assert values["backbones"][0]["licence"] == "apache-2.0"


def test_readme_has_exactly_the_two_lines_on_its_first_screen():
    first = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    commands = re.findall(r"^```(?:sh|bash)\n(.*?)^```", first, flags=re.S | re.M)
    lines = [line for block in commands for line in block.splitlines() if line.strip()]
    assert lines == [
        "python -m pip install -e . && medlora demo",
        'python -m pip install -e ".[test]" && python -m pytest',
    ]


def test_every_name_of_the_package_can_be_had():
    for name in medlora.__all__:
        assert getattr(medlora, name) is not None
