"""One small phantom archive and one run on it, shared by the tests of the whole way."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from planting import plant

from medlora.cli.main import run as medlora
from medlora.phantoms import radiographs


@dataclass
class Whole:
    """What check, train, evaluate and predict left, and printed."""

    folder: Path
    archive: Path
    labels: Path
    printed: str

    @property
    def cohort(self) -> Path:
        return self.folder / "cohort"

    @property
    def run(self) -> Path:
        return self.folder / "run"


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """An archive with planted identifiers, taken all the way by the command line."""
    folder = tmp_path_factory.mktemp("whole")
    labels = radiographs.write(folder / "phantoms", patients=40, seed=3, size=96, progress=False)
    archive = folder / "phantoms" / "dicom"
    plant(archive, labels)
    settings = ["--set", "data.image_size=64", "--epochs", "2", "--batch-size", "8"]
    printed = []
    capture = pytest.MonkeyPatch()
    try:
        for words in (
            ["check", str(archive), "--labels", str(labels), "-o", str(folder / "cohort"), "--select", "view=frontal"],
            ["train", str(folder / "cohort"), "-o", str(folder / "run"), *settings],
            ["evaluate", str(folder / "run")],
            ["predict", str(folder / "run"), str(archive), "-o", str(folder / "predictions.csv")],
        ):
            out = _Kept()
            capture.setattr("sys.stdout", out)
            capture.setattr("sys.stderr", out)
            code = medlora(words)
            capture.undo()
            assert code == 0, f"{words[0]} ended with {code}:\n{out.text}"
            printed.append(out.text)
    finally:
        capture.undo()
    return Whole(folder, archive, labels, "".join(printed))


class _Kept:
    """A stream that keeps what is written to it."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


@pytest.fixture
def call(capsys):
    """Run a verb: (exit code, standard output, standard error)."""

    def run(*words):
        code = medlora([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def answer(call):
    """Run a verb with --json: (exit code, the object)."""

    def run(*words):
        code, out, _ = call(*words, "--json")
        return code, json.loads(out)

    return run
