"""YAML of users, read within bounds: so deep, so many values, each number one that a machine has.

A file of some lines can name millions of values by anchors, or one value within itself.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = [
    "DEEPEST",
    "LONGEST",
    "MOST_VALUES",
    "BoundedLoader",
]

# Characters of a file; values in values; values in all, those that an alias stands for included.
LONGEST = 4 << 20
DEEPEST = 50
MOST_VALUES = 100_000
_LARGEST_NUMBER = 2**63


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader within bounds, with texts alone as keys. Raises YAMLError, nothing else.

    Each key stands once: of two, the last would win in silence.
    """

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise yaml.YAMLError(f"longer than {LONGEST >> 20} MiB")
        super().__init__(text)
        self._depth = self._values = 0
        self._size_of_node: dict[int, int] = {}  # of those that are whole

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node of the document, counted with what its aliases stand for."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        alias = self.check_event(yaml.AliasEvent)
        before = self._values
        self._depth += 1
        if self._depth > DEEPEST:
            raise _fault(f"values in more than {DEEPEST} others", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not alias:
            self._values += 1
            self._size_of_node[id(node)] = self._values - before
        elif id(node) in self._size_of_node:
            self._values += self._size_of_node[id(node)]
        else:
            raise _fault("a value that holds itself, by an alias", mark)
        if self._values > MOST_VALUES:
            raise _fault(f"more than {MOST_VALUES:,} values, aliases written out", mark)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """A node's value; one that is not what its tag or form says is a fault with its place."""
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            short = " ".join(str(error).split())[:100]
            raise _fault(f"a value that cannot be read ({short})", node.start_mark) from error
        if type(value) is int and abs(value) >= _LARGEST_NUMBER:
            raise _fault("a whole number of more than 63 bits", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A section, with texts as keys, each once."""
        lines: dict[str, int] = {}
        for key in (k for k, _ in node.value if isinstance(k, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                said = f"{key.value} stands in line {lines[key.value]} and in line {line}: keep one"
                raise yaml.YAMLError(said)
            lines[key.value] = line
        values = super().construct_mapping(node, deep)
        strange = next((k for k in values if not isinstance(k, str)), None)
        if strange is not None or None in values:
            raise _fault(
                f"the key {strange!r}, which is no name: put it in quotes", node.start_mark
            )
        return values


def _fault(what: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)
