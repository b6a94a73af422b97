"""The documentation against the code: generated parts, links, commands, targets, exit codes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from features import spec
from features.errors import ExitCode
from jobs import docs
from jobs.cli import app

PAGES = [docs.README, docs.CHINESE_README, docs.ROOT / "CONTRIBUTING.md", *sorted((docs.ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(docs.ROOT))


def test_generated_parts_are_up_to_date() -> None:
    stale = [name_of(path) for path, text in docs.generated().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make docs`"


def test_every_operation_and_encoding_has_words() -> None:
    assert {*get_args(spec.Op), *get_args(spec.Encoding)} == set(docs.WORDS)


def test_words_are_those_of_the_declaration() -> None:
    rate = spec.Rate(numerator=spec.GIFTS, denominator=spec.ENTERS, days=30, prior=0.015, strength=20)
    assert docs.words(rate) == "(gifts + 0.015 × 20) / (enters + 20) over 30 d"
    assert docs.words(spec.Buckets(boundaries=(1, 2.5))) == "buckets from 1, 2.5"


def test_only_what_is_between_the_markers_changes() -> None:
    text = "a\n<!-- flow -->\nold\n\nolder\n<!-- /flow -->\nb"
    assert docs.between(text, "flow", "new") == "a\n<!-- flow -->\nnew\n<!-- /flow -->\nb"


@pytest.mark.parametrize("text", ["", "<!-- flow -->\nold\n", "<!-- flow -->\nold\n<!-- /flow -->\n" * 2])
def test_markers_must_stand_there_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"<!-- flow --> and <!-- /flow -->"):
        docs.between(text, "flow", "new")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = set(getattr(get_command(app), "commands"))  # noqa: B009
    told = set(re.findall(r"(?:`|bin/|^ *)limelight ([a-z][a-z-]*)", text, re.MULTILINE))
    assert told - commands == set()
    targets = set(re.findall(r"^([a-z0-9-]+):", (docs.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z][a-z0-9-]*)", text)) - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:features|pipeline|training|jobs|conf|tests|docs|setup)/[\w/.-]+\.\w+)`", text)
    assert [path for path in named if not (docs.ROOT / path).exists()] == []


def bash_blocks(page: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def inline_commands(page: Path) -> set[str]:
    """What stands between backticks and can be typed: commands with their options, targets, settings."""
    return set(re.findall(r"`((?:limelight|make|spark-submit|--set) [^`]+)`", page.read_text(encoding="utf-8")))


def test_the_chinese_readme_has_the_commands_of_the_english_one_in_order() -> None:
    english = bash_blocks(docs.README)
    assert len(english) >= 2
    assert bash_blocks(docs.CHINESE_README) == english


def test_the_chinese_readme_names_no_other_commands() -> None:
    chinese = inline_commands(docs.CHINESE_README)
    assert len(chinese) > 20
    assert chinese - inline_commands(docs.README) == set()


def test_the_readmes_link_to_each_other() -> None:
    for page, other in ((docs.README, docs.CHINESE_README), (docs.CHINESE_README, docs.README)):
        first_lines = page.read_text(encoding="utf-8").splitlines()[:4]
        assert any(f"]({other.name})" in line for line in first_lines)


@pytest.mark.parametrize("page", [docs.README, docs.CHINESE_README], ids=name_of)
def test_the_readmes_explain_every_exit_code(page: Path) -> None:
    told = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert told == [(str(code.value), code.name) for code in ExitCode]


def test_the_changelog_names_every_command() -> None:
    changelog = (docs.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    commands = set(getattr(get_command(app), "commands"))  # noqa: B009
    assert [name for name in sorted(commands) if f"`{name}`" not in changelog and f"make {name}" not in changelog] == []
