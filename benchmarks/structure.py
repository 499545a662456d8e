"""Print the plan of the house: rooms, floors, arrows, circles, and the largest file and function.

A room is a module or a package directly in `ntk_uq`; an arrow says that one room imports from
another, wherever the import stands in it, unless for types only. A room's floor is one above the
highest of those that it imports from.

    python benchmarks/structure.py [path of a checkout]
"""

import ast
import sys
from functools import cache
from itertools import permutations
from pathlib import Path

import grimp


def imports() -> grimp.ImportGraph:
    """What imports what in the package that Python finds, types left out."""
    return grimp.build_graph("ntk_uq", exclude_type_checking_imports=True, cache_dir=None)


def rooms(graph: grimp.ImportGraph) -> set[tuple[str, str]]:
    """The arrows between rooms, importer first; the graph is reduced to its rooms."""
    names = graph.find_children("ntk_uq")
    for room in names:
        if graph.find_children(room):
            graph.squash_module(room)
    return {
        (importer, imported)
        for importer, imported in permutations(names, 2)
        if graph.direct_import_exists(importer=importer, imported=imported)
    }


def circles(arrows: set[tuple[str, str]]) -> list[set[str]]:
    """Sets of rooms of which each leads to every other one."""

    @cache
    def reached(room: str) -> frozenset[str]:
        seen: set[str] = set()
        ahead = [room]
        while ahead:
            here = ahead.pop()
            new = {imported for importer, imported in arrows if importer == here} - seen
            seen |= new
            ahead += new
        return frozenset(seen)

    found = {
        frozenset(other for other in reached(room) if room in reached(other))
        for room, _ in arrows
        if room in reached(room)
    }
    return [set(circle) for circle in found]


def floors(names: set[str], arrows: set[tuple[str, str]]) -> dict[str, int]:
    """Floor of each room; a circle counts as on one floor."""
    together = {room: circle for circle in map(frozenset, circles(arrows)) for room in circle}

    @cache
    def floor(group: frozenset[str]) -> int:
        below = {imported for importer, imported in arrows if importer in group} - group
        return 1 + max((floor(together.get(b, frozenset({b}))) for b in below), default=0)

    return {name: floor(together.get(name, frozenset({name}))) for name in names}


def lines(checkout: Path) -> dict[str, int]:
    """Lines of each file of the package."""
    files = (checkout / "ntk_uq").rglob("*.py")
    return {
        file.relative_to(checkout / "ntk_uq").as_posix(): len(file.read_text().splitlines())
        for file in files
    }


def functions(path: Path) -> list[tuple[int, str]]:
    """Lines of each function, its docstring left out."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                text = node.body[0]
                length -= text.end_lineno - text.lineno + 1
            found.append((length, node.name))
    return found


def main() -> None:
    checkout = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
    sys.path.insert(0, str(checkout))
    graph = imports()
    arrows = rooms(graph)
    names = set(graph.find_children("ntk_uq"))
    level = floors(names, arrows)
    for number in sorted(set(level.values()), reverse=True):
        print(f"floor {number}: {', '.join(sorted(n[7:] for n in names if level[n] == number))}")
    files = lines(checkout)
    length, name, file = max((*f, p) for p in files for f in functions(checkout / "ntk_uq" / p))
    print()
    print(f"rooms              {len(names)}")
    print(f"floors             {max(level.values())}")
    print(f"arrows             {len(arrows)}")
    print(f"circles            {len(circles(arrows))}")
    for largest in sorted(files, key=files.__getitem__, reverse=True)[:3]:
        print(f"largest files      {files[largest]} lines: ntk_uq/{largest}")
    print(f"largest function   {length} lines: ntk_uq/{file}, {name}")


if __name__ == "__main__":
    main()
