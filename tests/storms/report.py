"""A small table of what a storm measured, and what it found broken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """Figures in their order, and the promises that did not hold."""

    title: str
    figures: dict[str, object] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def require(self, holds: bool, violation: str) -> None:
        """Note a promise that does not hold."""
        if not holds:
            self.violations.append(violation)

    def require_none(self, found: object, violation: str) -> None:
        """Note a promise with what breaks it, if anything does."""
        if isinstance(found, set | list | dict | tuple) and found:
            some = sorted(found, key=str)[:5]
            self.violations.append(f"{violation}: {len(found)}, such as {some}")

    def print(self) -> None:
        print(f"\n{self.title}")
        for name, value in self.figures.items():
            shown = f"{value:,.2f}" if isinstance(value, float) else f"{value}"
            print(f"  {name:<44} {shown:>20}")
        for violation in self.violations:
            print(f"  VIOLATED: {violation}")


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share of all does not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
