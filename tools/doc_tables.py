"""Write the parts of docs/ that the code says better: the schema, the options, the commands.

``python tools/doc_tables.py`` brings them up to date in place; with ``--check`` it only tells whether they
are. tests/unit/test_docs.py does the same. A part stands between ``<!-- generated: NAME -->`` and
``<!-- end -->``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
if __name__ == "__main__":  # from a checkout, installed or not
    sys.path[:0] = [str(ROOT), str(ROOT / "magics")]

from nscontainer import api, cli, options, schema, spec, sweep_options  # noqa: E402
from nscontainer.cli import image_options  # noqa: E402
from nscontainer.doctor.table import ROWS  # noqa: E402
from nscontainer_magics import commands, plot_command  # noqa: E402

_PART: Final = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_KEYWORDS: Final = {
    *inspect.signature(spec.build).parameters,
    *inspect.signature(spec.limits).parameters,
    *inspect.signature(api.run).parameters,
}


def schema_table() -> str:
    """Give a row a column of the usage frame."""
    rows = [
        (
            f"`{column.name}`",
            column.unit,
            column.kind,
            column.meaning,
            _source(column.v1),
            _source(column.v2),
        )
        for column in schema.COLUMNS
    ]
    return table(["column", "unit", "kind", "what it is", "cgroup v1", "cgroup v2"], rows)


def _source(text: str) -> str:
    return "–" if text == "-" else text if text == "the same" else f"`{text}`"


def doctor_table() -> str:
    """Give a row of each of doctor's, and what it means."""
    return table(["row", "what it means when it isn't ✓"], list(ROWS.items()))


def option_tables() -> str:
    """Give a table for each group of options, under a heading."""
    parts = []
    for group in dict.fromkeys(option.group for option in options.OPTIONS):
        rows = [
            (
                _flags(option),
                option.help.replace("%%", "%"),
                _python(option),
                _yes(there=option.magic),
                _yes(there=option.cli),
            )
            for option in options.OPTIONS
            if option.group == group and not option.help.startswith("==")  # argparse.SUPPRESS
        ]
        head = ["option", "what it does", "Python", "`%%container`", "`nscontainer run`"]
        parts.append(f"### {group.capitalize()}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _flags(option: options.Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    value = option.metavar or ""
    return f"{flags} `{value}`" if option.takes_value else flags


def _python(option: options.Option) -> str:
    if option.dest.startswith("share_"):
        return f"`share=[{option.dest.removeprefix('share_')!r}]`".replace("'", '"')
    return f"`{option.dest}=`" if option.dest in _KEYWORDS else "–"


def _yes(*, there: bool) -> str:
    return "yes" if there else "–"


def sweep_table() -> str:
    """Give a row an option of a sweep."""
    rows = [
        (f"`{flag}`", text, f"`{keyword if '=' in keyword else keyword + '='}`")
        for flag, text, keyword in sweep_options.rows()
    ]
    return table(["`nscontainer sweep`, `%%container`", "what it does", "Python"], rows)


def command_table() -> str:
    """Give a row a sub-command."""
    rows = [(f"`{name}`", text) for name, (_, text) in cli.COMMANDS.items()]
    return table(["command", "what it does"], rows)


def magic_command_table() -> str:
    """Give a row a sub-command of ``%container``."""
    rows = [
        (f"`{name} {command.usage}`".replace(" `", "`"), command.summary)
        for name, command in commands.COMMANDS.items()
    ]
    rows.append(("`last`", "the result of the newest `%%container` cell"))
    rows.append((f"`plot {plot_command.USAGE}`", plot_command.SUMMARY))
    return table(["sub-command", "what it does"], rows)


def image_command_table() -> str:
    """Give a row a sub-command about images."""
    rows = [
        (f"`{name} {arguments.usage}`".replace(" `", "`"), arguments.summary)
        for name, arguments in image_options.COMMANDS.items()
    ]
    return table(["`nscontainer …` and `%container …`", "what it does"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table of GitHub's Markdown; in it a bar is escaped even in code."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in lines)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "schema": schema_table,
    "doctor-rows": doctor_table,
    "options": option_tables,
    "sweep-options": sweep_table,
    "commands": command_table,
    "magic-commands": magic_command_table,
    "image-commands": image_command_table,
}


def brought_up_to_date(text: str) -> str:
    """Give a document's text with every generated part made anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[3]}", text)


def main(arguments: Sequence[str]) -> int:
    """Write (or with ``--check`` only compare) every document that has generated parts."""
    stale = 0
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        new = brought_up_to_date(text)
        if new == text:
            continue
        stale += 1
        print(f"{path.relative_to(ROOT)}: {'out of date' if '--check' in arguments else 'written'}")
        if "--check" not in arguments:
            path.write_text(new, encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
