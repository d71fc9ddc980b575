"""A migration as a picture."""

from __future__ import annotations

from collections.abc import Iterator

from phyxius.cli._exits import CommandError, Exit
from phyxius.cli._screen import Line, clean
from phyxius.cli._session import Session, Subject
from phyxius.cli._status import cure_of_another_order
from phyxius.migration import SpecChangedError


def diagram(session: Session, *, name: str, unmarked: bool) -> Exit:
    """Print a migration in the language of Mermaid, with the phase that it is at marked."""
    subject = session.known(name)
    phase = None if unmarked else _phase(session, subject)
    lines = list(_mermaid(subject, phase))
    session.screen.json({"migration": name, "phase": phase, "mermaid": "\n".join(lines)})
    session.screen.show([Line.of(line) for line in lines], wrap=False)
    return Exit.DONE


def _phase(session: Session, subject: Subject) -> str:
    session.open_stores(subject.migration)
    try:
        phase = subject.phase()
        subject.check_order()
    except SpecChangedError as error:
        told = f"{subject.name}: {error.difference}; {cure_of_another_order(subject)}"
        raise CommandError(told, Exit.CHANGED) from error
    return phase


def _mermaid(subject: Subject, phase: str | None) -> Iterator[str]:
    order = subject.order
    yield "flowchart LR"
    for number, each in enumerate(order):
        yield f'    p{number}["{_text(each)}"]'
    for number, to in enumerate(order[1:]):
        sources = "<br/>".join(map(_text, subject.sources(to)))
        yield f'    p{number} -->|"{sources}"| p{number + 1}' if sources else f"    p{number} --> p{number + 1}"
    if phase is None:
        return
    current = order.index(phase)
    if current:
        yield f"    class {','.join(f'p{number}' for number in range(current))} passed"
    yield f"    class p{current} current"
    yield "    classDef current fill:#2da44e,stroke:#116329,color:#ffffff"
    yield "    classDef passed fill:#eaeef2,stroke:#8c959f,color:#57606a"


def _text(text: str) -> str:
    """A text that Mermaid takes for nothing else."""
    plain = (each.isascii() and (each.isalnum() or each in " _-.,:/") for each in clean(text))
    return "".join(each if is_plain else f"#{ord(each)};" for each, is_plain in zip(clean(text), plain, strict=True))
