"""Whether two runs may be compared: what of machine, input and workloads differs."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from ..results import ImageFacts, Run

#: Options that choose what is measured and how often, but not what is done.
_CHOOSING = frozenset({"rounds", "minutes", "complete"})
#: Of what the kernel leaves of the memory, a reboot changes a little.
_MEMORY = 0.02


def differences(first: Run, second: Run) -> list[str]:
    """Return what makes comparing the two doubtful, a line each; empty: nothing does.

    Versions aren't among it: those are what one compares.
    """
    return [*_machines(first, second), *_inputs(first, second), *_workloads(first, second)]


def _machines(first: Run, second: Run) -> Iterable[str]:
    for field in attrs.fields(type(first.machine)):
        one, other = getattr(first.machine, field.name), getattr(second.machine, field.name)
        if field.name == "load" or one == other:
            continue
        if field.name == "memory" and abs(one - other) <= _MEMORY * max(one, other):
            continue
        yield _differs(f"machine, {field.name.replace('_', ' ')}", one, other)


def _inputs(first: Run, second: Run) -> Iterable[str]:
    one, other = first.input, second.input
    if one.seed != other.seed:
        yield _differs("input, seed", one.seed, other.seed)
    if [_shown(image) for image in one.images] != [_shown(image) for image in other.images]:
        yield _differs(
            "input, images",
            "; ".join(map(_shown, one.images)),
            "; ".join(map(_shown, other.images)),
        )
    for name in sorted({*first.options, *second.options} - _CHOOSING):
        if first.options.get(name) != second.options.get(name):
            yield _differs(f"option {name}", first.options.get(name), second.options.get(name))


def _workloads(first: Run, second: Run) -> Iterable[str]:
    others = {one.name: one for one in second.workloads}
    for one in first.workloads:
        other = others.get(one.name)
        if other is None:
            continue
        for name in ("metric", "parameter", "durable", "cache"):
            if getattr(one, name) != getattr(other, name):
                yield _differs(
                    f"workload {one.name}, {name}", getattr(one, name), getattr(other, name)
                )


def _shown(image: ImageFacts) -> str:
    return f"{image.layers} layers, {image.entries} entries, {image.unpacked} bytes"


def _differs(what: str, first: object, second: object) -> str:
    return f"{what}: {first} in A, {second} in B"
