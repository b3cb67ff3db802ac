"""What the demo says: a timeline with figures, and bars for what takes long.

On a terminal the bars move; elsewhere each step is a line, so that a log reads like the screen.
"""

import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn


class Timeline:
    """Lines with the seconds since the start; `check` remembers what did not happen."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._started = time.monotonic()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[said]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_said: dict[str, str] = {}
        self.failures: list[str] = []
        self.checks = 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def title(self, text: str) -> None:
        """A chapter."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]")

    def say(self, text: str, **figures: object) -> None:
        """A line: what happened, and its figures."""
        tail = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        shown = f"  [dim]{escape(tail)}[/dim]" if tail else ""
        self.console.print(f"[cyan]{self.elapsed_s:6.1f} s[/cyan]  {escape(text)}{shown}")

    def check(self, happened: bool, what: str, **figures: object) -> None:
        """A step that must truly have happened for the demo to end well."""
        self.checks += 1
        if not happened:
            self.failures.append(what)
        mark = "[green]✓[/green]" if happened else "[red]✗ did not happen:[/red]"
        tail = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
        shown = f"  [dim]{escape(tail)}[/dim]" if tail else ""
        self.console.print(f"[cyan]{self.elapsed_s:6.1f} s[/cyan]  {mark} {escape(what)}{shown}")

    def bar(self, name: str, done: float, total: float, said: str = "") -> None:
        """Progress of something long; `total` 0 just turns."""
        if not self.console.is_terminal:
            if said and said != self._last_said.get(name) and done >= total:
                self._last_said[name] = said
                self.say(f"{name}: {said}")
            return
        if not self._tasks:
            self._bars.start()
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(escape(name), total=total or None, said=said)
        self._bars.update(self._tasks[name], completed=done, total=total or None, said=said)

    def end_bar(self, name: str) -> None:
        """It is done; its line goes."""
        task = self._tasks.pop(name, None)
        if task is not None:
            self._bars.remove_task(task)
        if not self._tasks:
            self._bars.stop()

    def show(self, text: str) -> None:
        """A text as it is: the configuration."""
        # Never wrapped: what is shown can be copied and run.
        self.console.print(escape(text), highlight=False, style="dim", soft_wrap=True)


def share(value: Any) -> str:
    """A share as a person reads it; a dash for what is not known."""
    return "–" if value is None else f"{float(value):.1%}"


def size(count: float) -> str:
    """Bytes as a person reads them."""
    if count >= 10 * 1024**2:
        return f"{count / 1024**2:.0f} MiB"
    return f"{count / 1024:.0f} KiB"
