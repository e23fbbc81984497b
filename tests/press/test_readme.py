"""The table of chapters in README.md says what the accepted ledgers say."""

import shutil

import pytest

from tools.press.project import PressError, Project
from tools.press.readme import BEGIN, END, chapters_table, write_readme


def test_the_table_of_chapters_is_the_accepted_one():
    text = (Project().root / "README.md").read_text()
    assert BEGIN + chapters_table(Project()) + END in text


def test_every_accepted_chapter_has_a_row_with_its_verdicts():
    table = chapters_table(Project())
    assert "(book/seeing-features/01-sae-derivation.ipynb)" in table
    assert "holds" in table


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    for name in ("_toc.yml", "book", "data"):
        source = Project().root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    project = Project(tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{BEGIN}old\n{END}below\n")
    write_readme(project)
    assert readme.read_text() == f"above\n{BEGIN}{chapters_table(project)}{END}below\n"
    readme.write_text("no marks")
    with pytest.raises(PressError, match="put both where the table belongs"):
        write_readme(project)
    assert readme.read_text() == "no marks"
