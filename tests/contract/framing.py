"""How a lesson opens and closes."""

from __future__ import annotations

import ast
import re

from dccrn_lib.lessons.running.parameters import parse_cell
from dccrn_lib.runtime.errors import ConfigError
from tests.contract.reading import Lesson, links_of, tree_of

VERBS = (3, 5)  # under "You will learn"
_TIME = r"\b(\d+)(?: to (\d+))? (s|minutes?) on a 2-core CPU\b"
CLOSING = ("What we saw", "Where we differ from the paper, and what is not known to us", "Exercises", "Next")


def opening(lesson: Lesson) -> list[str]:
    """Title, what you will learn, what you need, then the parameters: in this order. Advice."""
    violations = []
    number = lesson.path.name.partition("_")[0]
    text = lesson.text
    if not text or text[0][0] != 0 or not re.match(rf"# {number}\. \S", text[0][1]):
        violations.append(f"cell 0: the title must read '# {number}. ...'")
    learn, need = lesson.find_heading("You will learn"), lesson.find_heading("You need")
    if learn is None or need is None:
        wanted = {"You will learn": learn, "You need": need}
        return violations + [f"cell 0: nothing says {name!r}" for name, place in wanted.items() if place is None]
    parameters, _ = _start_cells(lesson)
    if not 0 <= learn <= need < (need + 1 if parameters is None else parameters):
        violations.append(f"cell {need}: title, what you will learn, what you need, parameters: in this order")
    headings = [h for i, h in lesson.headings() if i <= need]
    if headings[1:3] != ["You will learn", "You need"]:
        violations.append(f"cell {learn}: after the title come 'You will learn' and 'You need', here {headings[1:3]}")
    return violations + _learn(lesson, learn) + _need(lesson, need)


def start(lesson: Lesson) -> list[str]:
    """The parameters cell, which ``run-notebooks`` reads, before versions and seed, and nothing else that runs there."""
    parameters, versions = _start_cells(lesson)
    if parameters is None or versions is None:
        wanted = {"a parameters cell": parameters, "lesson.start(seed)": versions}
        return [f"cell 0: nothing says {name!r}" for name, place in wanted.items() if place is None]
    if parameters > versions:
        return [f"cell {parameters}: parameters, then versions and seed: in this order"]
    return _parameters(lesson, parameters, versions)


def _start_cells(lesson: Lesson) -> tuple[int | None, int | None]:
    """Index of the parameters cell and of the one that prints versions and seed."""
    parameters = next((i for i, c in lesson.code if "parameters" in c.metadata.get("tags", [])), None)
    versions = next((i for i, c in lesson.code if re.search(r"^lesson\.start\(seed\)", c.source, re.M)), None)
    return parameters, versions


def stated_seconds(lesson: Lesson) -> tuple[float, float] | None:
    """(least, most) time that "You need" states for a 2-core CPU, in s; None where it states none.

    The contract's tests hold it to the measured time of ``results/tutorial_times.json``, within a factor of two.
    """
    place = lesson.find_heading("You need")
    stated = place is not None and re.search(_TIME, _section(lesson.notebook.cells[place].source, "You need"), re.I)
    if not stated:
        return None
    unit = 1.0 if stated[3] == "s" else 60.0
    return unit * float(stated[1]), unit * float(stated[2] or stated[1])


def _section(source: str, heading: str) -> str:
    """Text under a heading, up to the next."""
    return re.split(r"^#+ ", source.split(heading, 1)[-1], flags=re.M)[0]


def _learn(lesson: Lesson, index: int) -> list[str]:
    items = re.findall(r"^[*-] +(.+)$", _section(lesson.notebook.cells[index].source, "You will learn"), re.M)
    found = []
    if not VERBS[0] <= len(items) <= VERBS[1]:
        found.append(f"cell {index}: {len(items)} things to learn; {VERBS[0]} to {VERBS[1]} are wanted")
    for item in items:
        if not re.match(r"(to )?\*\*[a-z]", item):
            found.append(f"cell {index}: what you learn begins with a verb in bold, here {item[:30]!r}")
    return found


def _need(lesson: Lesson, index: int) -> list[str]:
    need = _section(lesson.notebook.cells[index].source, "You need")
    wanted = {
        "the time on a 2-core CPU ('about 30 s on', '6 to 17 minutes on')": _TIME,
        "the time on a GPU": r"\bGPU\b",
        "the disk": r"\bdisk\b",
        "that the network is not used": r"\bnetwork\W+none\b",
    }
    found = [
        f"cell {index}: 'You need' does not say {what}" for what, p in wanted.items() if not re.search(p, need, re.I)
    ]
    earlier = lesson.course[: lesson.course.index(lesson.path.name)]
    if earlier and not set(links_of(need)) & set(earlier):
        found.append(f"cell {index}: 'You need' links no earlier notebook")
    return found


def _parameters(lesson: Lesson, index: int, versions: int) -> list[str]:
    found = []
    try:
        names = [p.name for p in parse_cell(lesson.notebook.cells[index].source, f"cell {index}")]
        if names[:2] != ["profile", "seed"]:
            found.append(f"cell {index}: the first parameters are profile and seed, here {names[:2]}")
    except ConfigError as error:
        found.append(str(error))
    others = [i for i, c in lesson.code if i < versions and i != index]
    for i in others:
        if not is_bootstrap(lesson, i):
            found.append(f"cell {i}: nothing runs before the versions but the bootstrap")
    if len(others) != 1:
        found.append(f"cell {versions}: one bootstrap cell stands before the versions, here {len(others)}")
    printed = "".join(o.get("text", "") for o in lesson.notebook.cells[versions].outputs)
    if not re.search(r"Python \d.*torch \d.*seed \d", printed):
        found.append(f"cell {versions}: versions and seed are not printed")
    return found


def is_bootstrap(lesson: Lesson, index: int) -> bool:
    """Whether a cell only looks whether dccrn_lib is there, and only says how to install it when it is not."""
    tree = tree_of(lesson.notebook.cells[index].source)
    if tree is None:
        return False
    guards = [node for node in tree.body if isinstance(node, ast.If)]
    rest = [node for node in tree.body if not isinstance(node, ast.If | ast.Import | ast.ImportFrom)]
    if len(guards) != 1 or rest or guards[0].orelse:
        return False
    tested, does = ast.unparse(guards[0].test), guards[0].body
    return (
        re.fullmatch(r"(importlib\.util\.)?find_spec\('dccrn_lib'\) is None", tested) is not None
        and [type(node) for node in does] == [ast.Raise]
        and "install" in ast.unparse(does[0])
    )


def closing(lesson: Lesson) -> list[str]:
    """What we saw, where the paper differs, exercises, next: in this order; first link back, last link forward."""
    places = {name: lesson.find_heading(name) for name in CLOSING}
    found = [f"the closing has no '## {name}'" for name, place in places.items() if place is None]
    order = [h for h in (re.sub(r"^\d+\. ", "", h) for _, h in lesson.headings()) if h in CLOSING]
    if not found and order != list(CLOSING):
        found.append(f"cell {places[CLOSING[0]]}: the closing's order is {', '.join(CLOSING)}, here {', '.join(order)}")
    links = [link for _, source in lesson.text for link in links_of(source)]
    back, forward = lesson.neighbour(-1), lesson.neighbour(+1)
    if back and (not links or links[0] != back):
        found.append(f"cell 0: the first link goes back to {back}, here {links[:1]}")
    if forward and (not links or links[-1] != forward):
        found.append(f"cell {len(lesson.notebook.cells) - 1}: the last link goes on to {forward}, here {links[-1:]}")
    return found
