"""The rules of the house: sizes, types and docstrings, import arrows, units, and what no file may contain."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("sim", "kernels", "tests", "bench")
MOST_FILE_LINES, MOST_FUNCTION_LINES, MOST_SCENARIO_LINES = 300, 40, 59
Function = ast.FunctionDef | ast.AsyncFunctionDef

IMPORT_KERNELS = (
    "sim/lower.py", "sim/point.py", "sim/candidates.py", "sim/verbs/", "sim/calibration/", "sim/silicon/",
    "sim/serving/", "sim/sweeps/",
)  # fmt: skip
KERNELS_IMPORT = {"jax", "numpy", "chex", "kernels"}
WITHOUT_JAX = (
    "sim/catalog/", "sim/measure/", "sim/profiles/", "sim/traffic/", "sim/schema.py",
    "sim/errors.py", "sim/units.py", "sim/results.py",
)  # fmt: skip
HEAVY = {"jax", "numpy", "pydantic", "matplotlib", "rich"}
# From top to bottom: nothing imports what stands in a line above its own.
FLOORS = (
    ("sim.cli", "sim.commands", "sim.__main__"),
    ("sim.guide", "sim.accuracy"),
    ("sim.verbs",),
    ("sim.calibration", "sim.sweeps"),
    ("sim.candidates", "sim.intervals", "sim.request", "sim.point", "sim.lower"),
    ("kernels",),
    ("sim.measure", "sim.traffic"),
)

FACTORS = (1e9, 2.0**30)
FACTOR_HOME = "sim/units.py"
NOT_A_FACTOR = {
    "kernels/memory.py": "1e9 sequences stand for no limit",
    "sim/fields.py": "bounds of counts and seconds",
    "sim/importers/hf_reader.py": "a bound of whole numbers",
}

FORBIDDEN_TEXT = {
    "a path of one machine": r"(?<![\w.])/(?:work|root|tmp/rc)\b",
    "the host of a package registry": r"\b(?:pypi|pythonhosted|npmjs|crates|anaconda)\.(?:org|io|com)\b",
    "an open end": r"\b(?:TO" + r"DO|FIX" + r"ME)\b|@[A-Z]{2,}@",
}
DATA_SUFFIXES = (".csv.gz", ".parquet", ".safetensors", ".gguf", ".npz", ".pkl")


@functools.cache
def modules(*rooms: str) -> dict[str, ast.Module]:
    """Path from the root -> syntax tree of every Python file in the rooms."""
    paths = [path.relative_to(ROOT).as_posix() for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    return {path: ast.parse(read(path)) for path in paths}


@functools.cache
def repository_files() -> tuple[Path, ...]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def read(path: str) -> str:
    """Text of a file, by its path from the root."""
    return (ROOT / path).read_text(encoding="utf-8")


def read_texts() -> Iterator[tuple[str, str]]:
    """(path from the root, text) of every file of the repository that is text."""
    for path in repository_files():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def named(path: str, places: tuple[str, ...]) -> bool:
    """Whether a path is one of the files, or in one of the folders (which end in a slash)."""
    return any(path.startswith(place) if place.endswith("/") else path == place for place in places)


def hold(problems: list[str]) -> None:
    """Fails with one problem a line."""
    __tracebackhide__ = True
    assert not problems, "\n" + "\n".join(problems)


def test_files_are_short():
    lengths = {path: len(read(path).splitlines()) for path in modules(*ROOMS)}
    hold([f"{path}: {n} lines, at most {MOST_FILE_LINES}" for path, n in lengths.items() if n > MOST_FILE_LINES])


def code_lines(node: Function) -> int:
    """Lines of a function without its docstring, which is to be as long as the formula needs."""
    docstring = node.body[0] if ast.get_docstring(node) else None
    return node.end_lineno - node.lineno + 1 - (docstring.end_lineno - docstring.lineno + 1 if docstring else 0)


def test_functions_are_short():
    problems = []
    for path, tree in modules(*ROOMS).items():
        for node in ast.walk(tree):
            if isinstance(node, Function) and (n := code_lines(node)) > MOST_FUNCTION_LINES:
                problems.append(f"{path}:{node.lineno}: {node.name} has {n} lines, at most {MOST_FUNCTION_LINES}")
    hold(problems)


def test_scenarios_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "scenarios").glob("*.toml")}
    hold(
        [f"{name}: {n} lines, at most {MOST_SCENARIO_LINES}" for name, n in lengths.items() if n > MOST_SCENARIO_LINES]
    )


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | Function]:
    """Public classes and functions of a module or class, and the public methods of those classes."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not re.match(r"_(?!_)", node.name):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def untyped(function: Function) -> list[str]:
    """Parameters without a type, `self` and `cls` aside, and "return"."""
    given = function.args
    every = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    bare = [a.arg for a in every if a and not a.annotation and a.arg not in ("self", "cls")]
    return bare if function.returns or function.name == "__init__" else [*bare, "return"]


def test_public_names_are_documented():
    problems = []
    for path, tree in modules("sim", "kernels").items():
        nodes = [tree, *(node for node in public(tree.body) if not node.name.startswith("__"))]
        bare = [node for node in nodes if not ast.get_docstring(node)]
        problems += [f"{path}: {getattr(node, 'name', 'the module')} has no docstring" for node in bare]
    hold(problems)


def test_public_names_are_typed():
    problems = []
    for path, tree in modules("sim", "kernels").items():
        for node in public(tree.body):
            if isinstance(node, Function) and (bare := untyped(node)):
                problems.append(f"{path}:{node.lineno}: {node.name}: no type for {', '.join(bare)}")
    hold(problems)


def imported(tree: ast.Module) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it; both the package and what is taken from it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def tops(tree: ast.Module) -> set[str]:
    """Top-level packages that a file imports."""
    return {name.partition(".")[0] for name in imported(tree)}


def test_kernels_import_only_arrays():
    known = KERNELS_IMPORT | sys.stdlib_module_names
    found = {path: tops(tree) - known for path, tree in modules("kernels").items()}
    hold([f"{path} imports {', '.join(sorted(names))}" for path, names in found.items() if names])


def test_only_the_crossing_imports_kernels():
    crossing = {path for path, tree in modules("sim").items() if "kernels" in tops(tree)}
    hold([f"{path} imports kernels" for path in sorted(crossing) if not named(path, IMPORT_KERNELS)])


def test_the_catalogue_knows_no_jax():
    quiet = {path: tree for path, tree in modules("sim").items() if named(path, WITHOUT_JAX)}
    hold([f"{path} imports jax" for path, tree in quiet.items() if {"jax", "kernels"} & tops(tree)])


def floor_of(module: str) -> int | None:
    """Index into FLOORS, or None for what every floor may use."""
    for index, rooms in enumerate(FLOORS):
        if any(module == room or module.startswith(room + ".") for room in rooms):
            return index
    return None


def test_arrows_point_one_way():
    problems = []
    for path, tree in modules("sim", "kernels").items():
        own = floor_of(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        above = {n for n in imported(tree) if own is not None and (floor := floor_of(n)) is not None and floor < own}
        problems += [f"{path} imports {name}" for name in sorted(above)]
    hold(problems)


def test_every_public_name_is_used():
    words = Counter(word for path in modules("sim", "kernels", "bench") for word in re.findall(r"\w+", read(path)))
    problems = []
    for path, tree in modules("sim", "kernels").items():
        assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
        names = [target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)]
        names += [node.name for node in public(tree.body) if node in tree.body and not node.name.startswith("__")]
        problems += [f"{path}: {name} is used nowhere" for name in names if words[name] == 1]
    hold(problems)


def run_python(code: str, *first: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that looks for modules in the given folders, then in this checkout."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*first, ROOT)))}
    place = first[0] if first else ROOT
    return subprocess.run([sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "room, heavy",
    [
        ("sim/commands", HEAVY),
        ("sim/catalog", {"jax", "matplotlib", "rich"}),
        ("sim/measure", {"jax", "numpy", "matplotlib", "rich"}),
    ],
)
def test_what_answers_at_once_imports_nothing_heavy(room, heavy):
    names = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in modules(room)]
    names += {"sim/commands": ["sim", "sim.cli"], "sim/catalog": ["sim.schema", "sim.results"]}.get(room, [])
    done = run_python(f"import {', '.join(names)}, sys; print(*({heavy!r} & set(sys.modules)))")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_another_package_called_kernels_is_named_in_a_sentence(tmp_path):
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("ROOFCAST = None\n")
    done = run_python(
        "from sim.cli import main; raise SystemExit(main(['estimate', 'llama-3.1-8b', 'h100']))", tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    said = r"roofcast: the package `kernels` that Python finds is not roofcast's but .*; hint: install .*\n"
    assert re.fullmatch(said, done.stderr)


def folded(node: ast.expr) -> float | None:
    """The value of a number, or of a power, product or shift of numbers."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.Mult | ast.LShift):
        left, right = folded(node.left), folded(node.right)
        if left is None or right is None or abs(right) > FACTORS[0]:
            return None
        if isinstance(node.op, ast.Mult):
            return left * right
        return left**right if isinstance(node.op, ast.Pow) else left * 2.0**right
    return None


def test_unit_factors_have_one_home():
    problems = []
    for path, tree in modules("sim", "kernels", "bench").items():
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.expr) and folded(node) in FACTORS]
        if path in NOT_A_FACTOR:
            problems += [] if nodes else [f"{path} needs its exception no more"]
        elif path != FACTOR_HOME:
            problems += [f"{path}:{node.lineno}: {ast.unparse(node)}; take it from {FACTOR_HOME}" for node in nodes]
    hold(problems)


@pytest.mark.parametrize("what", FORBIDDEN_TEXT)
def test_no_file_contains(what):
    problems = []
    for path, text in read_texts():
        for n, line in enumerate(text.splitlines(), 1):
            if found := re.search(FORBIDDEN_TEXT[what], line):
                problems.append(f"{path}:{n}: {what}: {found[0]}")
    hold(problems)


def test_no_data_of_others_is_kept():
    names = [path.relative_to(ROOT).as_posix() for path in repository_files()]
    problems = [f"{name} is a data file" for name in names if name.endswith(DATA_SUFFIXES)]
    texts = [(name, text) for name, text in read_texts() if name.endswith(".json")]
    problems += [f"{name} is a model's config.json" for name, text in texts if '"architectures"' in text]
    hold(problems)
