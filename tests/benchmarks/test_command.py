"""The command itself: what it says of goals, draws and writes. Nothing is measured."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import readme
from tests.benchmarks.__main__ import main
from tests.benchmarks.goals import GOALS, Goal
from tests.benchmarks.report import Bar, Report, Table
from tests.support import ROOT

MACHINE = {"processor": "2 cores of <something>", "Python": "CPython 3.11"}


def met(goal: Goal) -> float:
    return goal.now()


def missed(goal: Goal) -> float:
    return goal.now() - 1 if goal.at_least else goal.now() + 1


def kept(folder: Path, **values: float | None) -> Path:
    """A run that met all goals but those in ``values``, by benchmark and value."""
    reports: dict[str, Report] = {}
    for goal in GOALS:
        value = values.get(f"{goal.benchmark}: {goal.value}", met(goal))
        report = reports.setdefault(goal.benchmark, Report())
        if value is not None:
            report.values[goal.value] = value
    cases = ["no-op middleware", "managed, WAL", "custom SQL"]
    rows = [(name, f"{number}.25", f"{number}.5", "1", "1", "1") for number, name in enumerate(cases)]
    reports["requests"].tables.append(Table("Requests", ("", *"abcde"), rows))
    reports["requests"].bars += [Bar("managed, WAL", 2.3, ours=True), Bar("no-op middleware", 0.15, ours=False)]
    reports["peers"].bars.append(Bar("<a peer>", 1_200.0, ours=False, anew=True))
    file = folder / "run.json"
    file.write_text(
        json.dumps({"machine": MACHINE, "reports": {name: report.as_json() for name, report in reports.items()}})
    )
    return file


def test_a_check_of_a_run_that_met_all_goals_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--read", str(kept(tmp_path)), "--check"]) == 0
    said = capsys.readouterr().out
    assert "All goals are met." in said
    assert said.count(" met |") + said.count(" met (told only) |") == len(GOALS)


@pytest.mark.parametrize("goal", [goal for goal in GOALS if not goal.told], ids=lambda goal: goal.value)
@pytest.mark.parametrize("measured", [True, False])
def test_a_check_ends_with_1_where_a_goal_is_missed_or_was_not_measured(
    goal: Goal, measured: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{goal.benchmark}: {goal.value}"
    file = kept(tmp_path, **{name: missed(goal) if measured else None})
    assert main(["--read", str(file), "--check"]) == 1
    said = capsys.readouterr().out
    assert f"1 of {len(GOALS)} goals are not met: {name}." in said
    assert ("MISSED" if measured else "NOT MEASURED") in said
    # Without --check it is only told.
    assert main(["--read", str(file)]) == 0
    # Benchmarks that were not asked for are not judged.
    others = {other.benchmark for other in GOALS} - {goal.benchmark}
    assert main(["--read", str(file), "--check", "--only", *others]) == 0


def test_the_speed_of_other_peoples_code_is_told_and_fails_no_check(tmp_path: Path) -> None:
    told = [goal for goal in GOALS if goal.told]
    assert told
    file = kept(tmp_path, **{f"{goal.benchmark}: {goal.value}": missed(goal) for goal in told})
    assert main(["--read", str(file), "--check"]) == 0


def test_the_chart_has_every_bar_with_its_label_in_both_colour_schemes(tmp_path: Path) -> None:
    file = tmp_path / "chart.svg"
    assert main(["--read", str(kept(tmp_path)), "--plot", str(file)]) == 0
    svg = ET.fromstring(file.read_text())
    texts = ["".join(text.itertext()) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    for expected in ("no-op middleware", "managed, WAL", "<a peer>", "0.15", "2.30", "1,200", "2 cores of <something>"):
        assert any(expected in text for text in texts), expected
    assert "prefers-color-scheme: dark" in file.read_text()


def test_the_table_is_written_into_its_place_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{readme.BEGIN}\na stale row\n{readme.END}\nafter\n")
    for _ in range(2):
        assert main(["--read", str(kept(tmp_path)), "--readme", str(file)]) == 0
        text = file.read_text()
        assert text.startswith(f"before\n{readme.BEGIN}\n\n|")
        assert text.endswith(f"\n{readme.END}\nafter\n")
        assert "| **managed**, SQLite in WAL mode " in text
        assert "a stale row" not in text


def test_the_readme_has_a_place_for_the_table_and_shows_the_chart() -> None:
    text = (ROOT / "README.md").read_text()
    assert readme.BEGIN in text
    assert readme.END in text
    assert 'src=".github/benchmarks.svg"' in text
    assert (ROOT / ".github/benchmarks.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"machine": {}, "reports": {"requests": {}}}'])
def test_a_file_that_is_no_run_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(SystemExit, match="give a file that --json has written"):
        main(["--read", str(file)])


def test_drawing_and_writing_need_the_requests(tmp_path: Path) -> None:
    run = kept(tmp_path)
    (tmp_path / "README.md").write_text(f"{readme.BEGIN}\n{readme.END}\n")
    for option, name in (("--plot", "chart.svg"), ("--readme", "README.md")):
        with pytest.raises(SystemExit, match="without the benchmark requests"):
            main(["--read", str(run), "--only", "writes", option, str(tmp_path / name)])
    with pytest.raises(SystemExit, match="has no lines"):
        main(["--read", str(run), "--readme", str(run)])
