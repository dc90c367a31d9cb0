"""What the site takes from the code as it is: the verbs' options, the public names of each room, the notebooks.

Nothing of this is written down twice. ``VERBS``, ``ROOMS`` and ``NOTEBOOKS`` in mkdocs.yml's nav stand for the pages
that are made here. A verb's how-to, where there is one, is ``pages/verbs/VERB.md``; its options follow it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.testing import CliRunner

from medlora.cli.app import app

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("scans", "cohorts", "transforms", "backbones", "adapters", "evaluation", "training", "phantoms")
NOTEBOOKS = {
    "quickstart": "Quickstart",
    "from_your_dicom": "From your DICOM to an adapter",
    "nodules_on_ct": "Nodules on CT",
    "what_lora_changes": "What LoRA changes",
    "evaluation_for_a_paper": "Evaluation for a paper",
}
# Sphinx's cross-references, which Markdown does not know.
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):<code>~?([^<]*)</code>")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the made pages into the navigation."""
    made = {
        "VERBS": [{f"medlora {verb}": f"verbs/{verb}.md"} for verb in _verbs()],
        "ROOMS": [{"medlora": "reference/medlora.md"}]
        + [{f"medlora.{room}": f"reference/{room}.md"} for room in ROOMS],
        "NOTEBOOKS": [{title: f"notebooks/{name}.md"} for name, title in NOTEBOOKS.items()],
    }
    config.nav = _filled(config.nav, made)
    return config


def _filled(nav: Any, made: dict[str, list]) -> Any:
    if isinstance(nav, list):
        parts = [made[entry] if isinstance(entry, str) and entry in made else [_filled(entry, made)] for entry in nav]
        return [item for part in parts for item in part]
    if isinstance(nav, dict):
        return {title: _filled(entry, made) for title, entry in nav.items()}
    return nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages that no one writes."""
    for verb in _verbs():
        if files.get_file_from_path(f"verbs/{verb}.md") is None:
            files.append(File.generated(config, f"verbs/{verb}.md", content=f"# medlora {verb}\n"))
    for room in ("", *ROOMS):
        page = f"reference/{room or 'medlora'}.md"
        files.append(File.generated(config, page, content=_reference(f"medlora.{room}".rstrip("."))))
    for name in NOTEBOOKS:
        text, pictures = _notebook(name)
        files.append(File.generated(config, f"notebooks/{name}.md", content=text))
        for file, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{file}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add a verb's options to its page."""
    folder, _, name = page.file.src_uri.rpartition("/")
    return f"{markdown}\n\n{_options(name.removesuffix('.md'))}" if folder == "verbs" else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Show the cross-references of docstrings as the names that they are, and a colon before code as one."""
    return _ROLE.sub(r"<code>\1</code>", html).replace("::</p>", ":</p>")


# --- the command line -------------------------------------------------------------------------------------------------


def _verbs() -> list[str]:
    """The verbs in the order of the command line; then the groups of verbs."""
    commands = [info.name or info.callback.__name__ for info in app.registered_commands if info.callback]
    return commands + [str(info.name or info.typer_instance.info.name) for info in app.registered_groups]


def _options(verb: str) -> str:
    """What ``medlora VERB --help`` prints; of a group of verbs, that of each."""
    text = _help(verb)
    group = next((info for info in app.registered_groups if info.name == verb), None)
    below = [info.name or info.callback.__name__ for info in group.typer_instance.registered_commands] if group else []
    return "## Options\n\n" + "\n\n".join([text, *(_help(verb, name) for name in below)])


def _help(*words: str) -> str:
    answer = CliRunner().invoke(app, [*words, "--help"], prog_name="medlora", terminal_width=80)
    if answer.exit_code != 0:
        raise RuntimeError(f"medlora {' '.join(words)} --help ended with {answer.exit_code}")
    return f"```text\n$ medlora {' '.join(words)} --help\n{answer.output.strip()}\n```"


# --- Python -----------------------------------------------------------------------------------------------------------


def _reference(module: str) -> str:
    """A page for a room: its docstring, then each of its public names."""
    folder = REPOSITORY / module.replace(".", "/")
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    public = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    )
    names = [name for name in public if not name.startswith("_")]
    about = f"::: {module}\n    options: {{members: false, show_root_heading: false}}\n"
    # A function in a file of its own name, such as scans.read, would be taken for the file.
    paths = [f"{name}.{name}" if _defines(folder / f"{name}.py", name) else name for name in names]
    return f"# {module}\n\n{about}\n" + "\n".join(f"::: {module}.{path}\n" for path in paths)


def _defines(file: Path, name: str) -> bool:
    if not file.is_file():
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name for node in body)


# --- the notebooks ----------------------------------------------------------------------------------------------------


def _notebook(name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures: as tests/whole/test_notebook.py last executed it, where it did."""
    from nbconvert import MarkdownExporter

    source = nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
    executed, note = REPOSITORY / "build" / "notebooks" / f"{name}.ipynb", ""
    shown = nbformat.read(executed, as_version=4) if executed.is_file() else source
    if [cell.source for cell in shown.cells] != [cell.source for cell in source.cells]:
        shown = source
    if shown is source:
        note = "*Shown without its results: this site was built before the notebook was executed.*\n\n"
    body, resources = MarkdownExporter().from_notebook_node(shown)
    pictures = {f"{name}_{file}": content for file, content in resources["outputs"].items()}
    for file in resources["outputs"]:
        body = body.replace(f"]({file})", f"]({name}_{file})")
    title, _, rest = body.strip().partition("\n")
    link = f"`notebooks/{name}.ipynb`, and as a script `notebooks/{name}.py`.\n\n"
    return f"{title}\n\n{link}{note}{rest}\n", pictures
