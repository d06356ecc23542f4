"""What MkDocs needs to know of this repository: pages that live elsewhere in it, and how links to them are written."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {"changelog.md": "CHANGELOG.md", "deploy-files.md": "deploy/README.md"}
"""By their place in the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are listed as their files are."""
    decisions = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    for section in config.nav or []:
        if "Decisions" in section:
            section["Decisions"] = ["decisions/README.md", *(f"decisions/{name}" for name in decisions)]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for place, source in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    folder = (ROOT / PAGES.get(page.file.src_path, f"docs/{page.file.src_path}")).parent

    def linked(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = (folder / target).resolve()
        if path.is_relative_to(ROOT / "docs") and page.file.src_path not in PAGES:
            return found[0]
        places = {(ROOT / source).resolve(): place for place, source in PAGES.items()}
        place = places.get(path)
        if place is None and path.is_relative_to(ROOT / "docs"):
            place = path.relative_to(ROOT / "docs").as_posix()
        if place is not None:
            return f"[{text}]({'../' * page.file.src_path.count('/')}{place}{anchor or ''})"
        # A file of the repository that is no page is named by its path.
        name = path.relative_to(ROOT).as_posix()
        return f"{text} (`{name}`)" if name not in text else text

    markdown = re.sub(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)", linked, markdown)
    # Words after the language of a block are for the tests.
    return re.sub(r"^```(\w+) [^\n]+$", r"```\1", markdown, flags=re.MULTILINE)
