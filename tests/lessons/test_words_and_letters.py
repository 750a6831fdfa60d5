"""One letter for one thing, one word for one thing: docs/notation.md and docs/glossary.md against all lessons."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dccrn_lib.runtime.paths import notebooks_dir, project_root
from tests.contract.reading import Lesson, tree_of
from tests.contract.teaching import recap_terms

LESSONS = {path.stem.split("_")[0]: Lesson.read(path) for path in sorted(notebooks_dir().glob("[0-9]*.ipynb"))}
CAPITALS = {"Y", "N", "M", "T"}  # a lesson that uses one of them in a formula has it in its table
#: Attributes of STFTConfig -> the letter that code may call them by.
LETTERS = {"window_length": "L", "hop_length": "h", "fft_size": "N"}
VALUES = {"L": {400}, "h": {100, 160}, "N": {512}}
each_lesson = pytest.mark.parametrize("number", LESSONS)


def rows(text: str, first: str) -> list[list[str]]:
    """Cells of the rows of the first table whose head begins with ``first``."""
    table = re.search(rf"^\| {first} \|.*\n\|[-| :]+\|\n((?:\|.*(?:\n|$))+)", text, re.M)
    assert table, f"no table begins with {first!r}"
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in table[1].strip().splitlines()
    ]


def letters(cell: str) -> list[str]:
    """Letters of a first column, without arguments, owners and what they are equal to.

    >>> letters(r"$X[f, k]$, $h_S$, $A_i$, $z = x_r + j x_i$, $Q(f, t)$, $(h, c)$")
    ['X', 'h', 'A', 'z', 'Q', '(h, c)']
    """
    found = []
    for formula in re.findall(r"\$([^$]+)\$", cell):
        formula = re.split(r" *(?:=|\\le|\\ldots)", formula)[0].strip()
        if formula.startswith("("):  # a pair, such as the state of an LSTM
            found.append(formula)
            continue
        for part in re.sub(r"\[.*?\]|\(.*?\)", "", formula).split(","):
            found.append(re.sub(r"(?<!^b)_[STki]$", "", part.strip()))
    return found


NOTATION = (project_root() / "docs" / "notation.md").read_text(encoding="utf-8")
EVERYWHERE, SOMEWHERE = NOTATION.split("## In some lessons only")
HEADS = {letters(row[0])[0]: re.search(r"\*\*(.+?)\*\*", row[1])[1] for row in rows(EVERYWHERE, "symbol")}
LOCAL = {(letters(row[0])[0], number): row[1] for row in rows(SOMEWHERE, "symbol") for number in row[2].split(", ")}


def table_of(lesson: Lesson) -> list[list[str]]:
    source = next(s for _, s in lesson.text if re.search(r"^\| symbol \|", s, re.M))
    return rows(source, "symbol")


def formulas(lesson: Lesson) -> list[str]:
    """Formulas of the text, words and commands taken out."""
    found = []
    for _, source in lesson.text:
        source = re.sub(r"^```.*?^```|`[^`\n]*`", "", source, flags=re.M | re.S)
        for match in re.finditer(r"\$\$(.*?)\$\$|\$([^$\n]+)\$", source, re.S):
            text = re.sub(r"\\(?:text|mathrm|operatorname|mathtt|texttt)\*?\{[^}]*\}", " ", match[1] or match[2])
            found.append(re.sub(r"\\[A-Za-z]+", " ", text))
    return found


def test_no_capital_letter_has_a_second_meaning():
    again = {(letter, number) for letter, number in LOCAL if letter in HEADS and letter.isupper()}
    assert again == set()
    assert CAPITALS <= set(HEADS) and {number for _, number in LOCAL} <= set(LESSONS)


@each_lesson
def test_tables_of_the_lessons_say_what_the_notation_says(number: str):
    found = []
    for symbols, meaning, *_ in table_of(LESSONS[number]):
        for letter in letters(symbols):
            if (letter, number) in LOCAL:
                continue
            if letter not in HEADS:
                found.append(f"{letter} is not in docs/notation.md for lesson {number}")
            elif HEADS[letter].casefold() not in meaning.casefold():
                found.append(f"{letter} is {HEADS[letter]!r} in docs/notation.md, here {meaning!r}")
    assert found == []


@each_lesson
def test_capital_letters_of_formulas_are_in_the_table(number: str):
    declared = {letter for symbols, *_ in table_of(LESSONS[number]) for letter in letters(symbols)}
    used = set()
    for formula in formulas(LESSONS[number]):
        used |= set(re.findall(r"(?<![A-Za-z_^])(?<![_^]\{)([A-Z])(?![A-Za-z_])", formula)) & CAPITALS
    assert used - declared == set()


@each_lesson
def test_code_calls_window_hop_and_fft_size_by_their_letters(number: str):
    """A letter that is bound to one of the three is the right one, and a bare number behind it is the value."""
    found = []
    for i, cell in LESSONS[number].code:
        for name, value in bindings(tree_of(cell.source)):
            if isinstance(value, ast.Attribute) and len(name) == 1 and LETTERS.get(value.attr, name) != name:
                found.append(f"cell {i}: {name} = ...{value.attr}")
            if isinstance(value, ast.Constant) and name in VALUES and value.value not in VALUES[name]:
                found.append(f"cell {i}: {name} = {value.value}")
    assert found == []


def bindings(tree: ast.AST | None) -> list[tuple[str, ast.expr]]:
    """(name, expression) of simple assignments, tuples taken apart."""
    found: list[tuple[str, ast.expr]] = []
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.append((target.id, node.value))
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=False)
                    found += [(name.id, value) for name, value in pairs if isinstance(name, ast.Name)]
    return found


# ---- the test sees what it is for


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("$X[f, k]$, $h_S$, $A_i$", ["X", "h", "A"]),
        ("$z = x_r + j x_i$", ["z"]),
        ("$Q(f, t)$", ["Q"]),
        ("$(h, c)$", ["(h, c)"]),
        (r"$\hat s_S$, $\hat s_T$", [r"\hat s", r"\hat s"]),
        ("$b_r, b_i$", ["b_r", "b_i"]),
        ("$m_j^A$", ["m_j^A"]),
    ],
)
def test_letters_are_read(cell: str, wanted: list[str]):
    assert letters(cell) == wanted


def test_a_window_that_is_called_by_another_letter_is_seen():
    tree = ast.parse("N, h = config.window_length, 100")
    assert [(name, LETTERS.get(getattr(value, "attr", ""), name)) for name, value in bindings(tree)] == [
        ("N", "L"),
        ("h", "h"),
    ]


# ---- words


def glossary() -> dict[str, list[str]]:
    """Term -> numbers of the lessons that it links."""
    text = (project_root() / "docs" / "glossary.md").read_text(encoding="utf-8")
    found = {}
    for line in text.split("| --- | --- | --- |\n")[1].strip().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[0] not in found, f"{cells[0]!r} is explained twice"
        found[cells[0]] = re.findall(r"\[(\d+b?)\]\(\.\./notebooks/(?:\1)_\w+\.ipynb\)", cells[-1])
    return found


@each_lesson
def test_terms_of_a_recap_are_in_the_glossary(number: str):
    known = glossary()
    terms = recap_terms(LESSONS[number])
    assert [t for t in terms if t not in known] == []
    assert [t for t in terms if number not in known[t]] == []


def test_the_glossary_is_in_alphabetical_order_and_links_a_lesson_for_each_term():
    known = glossary()
    order = [re.sub(r"[^a-z0-9 ]", "", term.casefold()) for term in known]
    assert order == sorted(order)
    assert [term for term, numbers in known.items() if not numbers] == []


# ---- the notebook of solutions


def checks(sources: list[str]) -> set[str]:
    """Checks that cells call; a check that was imported by another name counts as itself."""
    names = {m[2]: m[1] for s in sources for m in re.finditer(r"(check_\w+) as (check_\w+)", s)}
    called = {name for s in sources for name in re.findall(r"\b(check_\w+)\(", s)}
    return {names.get(name, name) for name in called}


def solved() -> dict[str, tuple[list[str], list[str]]]:
    """Lesson -> (sources, printed outputs) of its section in the notebook of solutions."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    number = ""
    for cell in Lesson.read(Path(notebooks_dir()) / "solutions.ipynb").notebook.cells:
        heading = re.match(r"## (\d+b?)\. ", cell.source)
        number = heading[1] if heading else "" if cell.source.startswith("## ") else number
        if number and cell.cell_type == "code":
            sources, printed = found.setdefault(number, ([], []))
            sources.append(cell.source)
            printed.append("".join(output.get("text", "") for output in cell.outputs))
    return found


@each_lesson
def test_every_exercise_is_solved_and_the_check_says_right(number: str):
    lesson = LESSONS[number]
    begin, end = lesson.find_heading("Exercises"), lesson.find_heading("Next")
    wanted = checks([cell.source for i, cell in lesson.code if begin < i <= end])
    sources, printed = solved()[number]
    assert checks(sources) == wanted
    assert [p for p in printed if "Right: " not in p and "right: True" not in p] == []
