"""What the house looks like from outside: floors, arrows, sizes, doubled names. In figures.

usage: python benchmarks/house.py [ROOT]     ROOT holds src/tunelab (default: this repository)

Standard library only, so that it runs on any checkout, an old one too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

_MAPPINGS = {"dict", "Dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}
# Names that say the same thing in every file that has them.
SHARED = {"__all__", "T", "Floats", "Ints", "Bools", "METHODS", "main"}
COUNTED = {
    "fmt: skip": r"# fmt: skip",
    "yield from": r"\byield from\b",
    "noqa": r"# noqa",
    "type: ignore": r"# type: ignore",
}


def source_files(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module under src/tunelab."""
    base = root / "src"
    files = {}
    for path in sorted((base / "tunelab").rglob("*.py")):
        parts = path.relative_to(base).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported(tree: ast.AST, name: str, files: dict[str, Path]) -> set[str]:
    """Our modules that a module imports, anywhere in it."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        modules |= {module_of(each, files) for each in names}
    return modules - {"", "tunelab", name}


def module_of(dotted: str, files: dict[str, Path]) -> str:
    """The module that a dotted name lies in, or an empty text."""
    while dotted and dotted not in files:
        dotted = dotted.rpartition(".")[0]
    return dotted


def floors(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Longest way down from each node. Raises RecursionError naming a circle."""
    height: dict[str, int] = {}

    def down(node: str, path: tuple[str, ...]) -> int:
        if node in path:
            raise RecursionError(" -> ".join((*path[path.index(node) :], node)))
        if node not in height:
            below = (down(n, (*path, node)) for n in arrows.get(node, ()))
            height[node] = 1 + max(below, default=0)
        return height[node]

    for node in arrows:
        down(node, ())
    return height


def top_level_names(tree: ast.Module) -> list[str]:
    """Functions, classes and values that a module defines."""
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        names += _names_given(node)
    return names


def doubled_names(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Names that several modules define, with these modules."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for name in set(top_level_names(tree)) - SHARED:
            homes[name].append(module)
    return {name: where for name, where in sorted(homes.items()) if len(where) > 1}


def function_lengths(trees: dict[str, ast.Module]) -> list[tuple[int, str]]:
    """(lines, dotted name) of every function, longest first."""
    return sorted(
        (
            (node.end_lineno - node.lineno + 1, f"{module.removeprefix('tunelab.')}.{node.name}")
            for module, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
        ),
        reverse=True,
    )


def aliases_of_any(trees: dict[str, ast.Module]) -> set[str]:
    """Names of modules that stand for Any, or for a mapping from texts to it."""
    aliases: set[str] = set()
    while True:
        more = {
            name
            for tree in trees.values()
            for node in tree.body
            if (value := _value_of(node)) is not None
            and (_is_any(value, aliases) or _is_loose(value, aliases))
            for name in _names_given(node)
        }
        if more <= aliases:
            return aliases
        aliases |= more


def loose_mappings(trees: dict[str, ast.Module]) -> list[tuple[str, str]]:
    """(dotted name of the function or class, what is written) of every mapping from texts to Any.

    An alias of Any, or of such a mapping, counts wherever it is used; a text as annotation too.
    """
    aliases = aliases_of_any(trees)
    places: list[tuple[str, str]] = []

    def look(node: ast.AST, where: str) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "Any" in node.value:
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return
        if _is_loose(node, aliases) or (isinstance(node, ast.Name) and node.id in aliases):
            places.append((where, ast.unparse(node)))
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}"
        for child in ast.iter_child_nodes(node):
            look(child, where)

    for module, tree in trees.items():
        look(tree, module.removeprefix("tunelab."))
    return places


def count_given(trees: dict[str, ast.Module], name: str) -> int:
    """How often a value is given this name: assigned, looped over or taken as an argument."""
    return sum(
        (isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store))
        or (isinstance(n, ast.arg) and n.arg == name)
        for tree in trees.values()
        for n in ast.walk(tree)
    )


def _value_of(node: ast.stmt) -> ast.expr | None:
    """What a statement of a module gives a name to; a type in quotes is read."""
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        try:
            return ast.parse(value.value.strip(), mode="eval").body
        except SyntaxError:
            return None
    return value


def _names_given(node: ast.stmt) -> list[str]:
    """Names that a statement of a module gives a value to, in a tuple and with a type too."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    else:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else []
    return [
        n.id
        for t in targets
        for n in ast.walk(t)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]


def _is_any(node: ast.AST, aliases: set[str]) -> bool:
    if isinstance(node, ast.BinOp):  # X | Any
        return _is_any(node.left, aliases) or _is_any(node.right, aliases)
    if isinstance(node, ast.Attribute):
        return node.attr == "Any"
    return isinstance(node, ast.Name) and (node.id == "Any" or node.id in aliases)


def _is_loose(node: ast.AST, aliases: set[str]) -> bool:
    """Whether this is dict[str, Any], Mapping[str, Any] or their like."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Tuple):
        return False
    name = node.value.attr if isinstance(node.value, ast.Attribute) else node.value
    name = name.id if isinstance(name, ast.Name) else name
    key, *values = node.slice.elts
    is_text = isinstance(key, ast.Name) and key.id == "str"
    return name in _MAPPINGS and is_text and any(_is_any(v, aliases) for v in values)


def counts(root: Path) -> dict[str, int]:
    """How often each pattern of `COUNTED` stands in the sources."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in source_files(root).values())
    return {name: len(re.findall(pattern, text)) for name, pattern in COUNTED.items()}


def room_of(module: str) -> str:
    """The package directly under tunelab, or the module itself."""
    return module.split(".")[1]


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    files = source_files(root)
    if not files:
        sys.exit(f"{root}: no src/tunelab here")
    trees = {m: ast.parse(p.read_text(encoding="utf-8")) for m, p in files.items()}
    rooms: dict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        if module != "tunelab":
            reached = imported(tree, module, files)
            rooms[room_of(module)] |= {room_of(m) for m in reached} - {room_of(module)}
    sizes = sorted(((p.read_text("utf-8").count("\n"), m) for m, p in files.items()), reverse=True)
    arrows = sum(map(len, rooms.values()))
    height = floors(rooms)
    print(f"{len(files)} modules, {sum(n for n, _ in sizes):,} lines")
    print(f"{len(rooms)} rooms on {max(height.values())} floors, {arrows} arrows between them")
    for floor in range(max(height.values()), 0, -1):
        print(f"  {floor}: {', '.join(sorted(r for r, h in height.items() if h == floor))}")
    print("largest modules: " + ", ".join(f"{m[8:]} {n}" for n, m in sizes[:10]))
    longest = function_lengths(trees)[:10]
    print("longest functions: " + ", ".join(f"{name} {n}" for n, name in longest))
    loose = loose_mappings(trees)
    print(f"mappings from texts to Any, by any name: {len(loose)} in {len(set(loose))} places")
    print(f"values called found: {count_given(trees, 'found')}")
    for name, count in counts(root).items():
        print(f"{name}: {count}")
    doubled = doubled_names(trees)
    print(f"names that several modules define: {len(doubled)}")
    print("  " + ", ".join(f"{name} x{len(where)}" for name, where in doubled.items()))


if __name__ == "__main__":
    main()
