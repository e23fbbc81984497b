"""The table of chapters in README.md, written from the accepted ledgers."""

from __future__ import annotations

from typing import Any

from tools.press.chapters import Chapter, load_chapters
from tools.press.ledger import load_ledgers, verdicts_in_words
from tools.press.project import PressError, Project, write_atomic

BEGIN, END = "<!-- press: chapters -->\n", "<!-- /press -->\n"


def chapters_table(project: Project) -> str:
    """Return the table in Markdown: one row a chapter that has an accepted run in the book profile."""
    ledgers = load_ledgers(project.accepted("book"))
    accepted = [chapter for chapter in load_chapters(project) if chapter.slug in ledgers]
    rows = [_row(project, chapter, ledgers[chapter.slug]) for chapter in accepted]
    head = ["| chapter | paper | what is claimed | verdicts | runs in |", "|---|---|---|---|---|"]
    return "\n".join(head + rows) + "\n"


def _row(project: Project, chapter: Chapter, ledger: dict[str, Any]) -> str:
    about = chapter.notebook().metadata.get("tml", {})
    run = ledger["run"]
    card = f"{run['seconds'] / 60:.1f} min, {run['peak_bytes'] / 1e9:.1f} GB"
    paper = f"[{about['paper']}](https://arxiv.org/abs/{about['paper']})"
    title = f"[{ledger['title']}]({chapter.path.relative_to(project.root)})"
    return f"| {title} | {paper} | {about['claim']} | {verdicts_in_words(ledger)} | {card} |"


def write_readme(project: Project) -> None:
    """Replace the table between the two marks in README.md."""
    readme = project.root / "README.md"
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise PressError(
            f"README.md has no {BEGIN.strip()} ... {END.strip()}: put both where the table belongs"
        )
    before, rest = text.split(BEGIN, 1)
    write_atomic(readme, before + BEGIN + chapters_table(project) + END + rest.split(END, 1)[1])
