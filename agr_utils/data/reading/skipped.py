"""What was left out and why: the record that every command which reads a folder, archive or table ends with."""

from collections.abc import Iterator

from agr_utils.errors import printable

MAX_EXAMPLES = 20  # paths kept of each reason; the count goes on


class Skipped:
    """Counts of what was left out by reason, with the first paths of each as examples.

    ``str()`` is one line, such as ``3 skipped: 2 HEIC (install pillow-heif), 1 unreadable``, and empty where nothing
    was left out.
    """

    def __init__(self):
        self.counts: dict[str, int] = {}
        self.examples: dict[str, list[str]] = {}

    def add(self, reason: str, path: object) -> None:
        """Count one file, folder or row under a reason: a few words, and in brackets what would help."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(str(path))

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        if not self.counts:
            return ""
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        return f"{len(self)} skipped: {', '.join(f'{count} {printable(reason)}' for reason, count in ordered)}"

    def lines(self) -> Iterator[str]:
        """A line for each example, safe for a terminal; last of each reason how many more there are."""
        for reason, examples in self.examples.items():
            yield from (printable(f"skipped: {path}: {reason}") for path in examples)
            if (more := self.counts[reason] - len(examples)) > 0:
                yield printable(f"skipped: and {more} more: {reason}")

    def to_dict(self) -> dict:
        """As JSON-able values: ``{"total": 3, "reasons": {"unreadable": {"count": 1, "examples": ["a.jpg"]}}}``."""
        reasons = {
            reason: {"count": count, "examples": [path.encode(errors="backslashreplace").decode() for path in paths]}
            for (reason, count), paths in zip(self.counts.items(), self.examples.values(), strict=True)
        }
        return {"total": len(self), "reasons": reasons}
