"""Crashes: a process dies, the power is cut, or the disk is full or fails, at each write of every
operation.

A process of its own does one act (see ``acts``) and is stopped before everything that it writes
(``interception``). What it leaves is looked at by a driver that was opened afterwards, and must be
what the model has before the act, or after it.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

import attrs
import pytest

from ..driver import Held
from ..errors import ConflictError, CowshedError, NotFoundError
from .acts import CALLS, GROUND, SESSIONS, UNSYNCED, Act, clear, lay_ground
from .disk_calls import Unavailable
from .interception import Fault, Watch, Watched
from .isolation import fresh_marked
from .kit import Kit, Store, key
from .memory import MemoryDriver
from .oracle import Picture, differences

#: What a store holds: of every ID what it is, and what it shows.
State = dict[str, tuple[Held, str | None, Picture]]

every_act = pytest.mark.parametrize("act", [*CALLS, *SESSIONS], ids=lambda act: act.name)


class CrashConformance(Kit):
    """Each call succeeds whole or leaves the store as it was, whatever happens on the way."""

    group = "crash"

    #: Writes of each act that are looked at in the standard run; a thorough one looks at all.
    kills, failures, cuts = 6, 3, 3

    @every_act
    def test_a_kill_before_any_write_leaves_before_or_after(self, store: Store, act: Act) -> None:
        self.spent(store)
        with self.unless_unavailable():
            trials = Trials(self, store, act)
            for fault in trials.faults(self.kills, None):
                trials.killed(fault)
            trials.succeeds()

    @every_act
    def test_a_full_disk_at_any_write_leaves_before_or_after(self, store: Store, act: Act) -> None:
        self.spent(store)
        with self.unless_unavailable():
            trials = Trials(self, store, act)
            for fault in trials.faults(self.failures, errno.ENOSPC):
                trials.failed(fault)
            trials.succeeds()

    @every_act
    def test_an_io_error_at_any_write_leaves_before_or_after(self, store: Store, act: Act) -> None:
        self.spent(store)
        with self.unless_unavailable():
            trials = Trials(self, store, act)
            for fault in trials.faults(self.failures, errno.EIO):
                trials.failed(fault)
            trials.succeeds()

    @every_act
    def test_a_power_cut_loses_nothing_that_was_acknowledged(self, store: Store, act: Act) -> None:
        self.spent(store)
        with self.unless_unavailable():
            trials = Trials(self, store, act)
            for fault in trials.cuts(self.cuts):
                trials.killed(fault)
            trials.cut_after()

    def test_after_a_power_cut_what_wasnt_synced_can_be_removed(self, store: Store) -> None:
        self.spent(store)
        with self.unless_unavailable():
            Trials(self, store, UNSYNCED).cut_and_removed()

    def spent(self, store: Store) -> None:
        """Skip where a process can't share the store."""
        if not self.processes:
            pytest.skip("the store lives in one process")

    @contextmanager
    def unless_unavailable(self) -> Generator[None]:
        """Skip where the machine can't do it."""
        try:
            yield
        except Unavailable as error:
            pytest.skip(str(error))


class Trials:
    """One act, again and again, each time with a fault at another of its writes."""

    def __init__(self, kit: Kit, store: Store, act: Act) -> None:
        self.kit, self.store, self.act = kit, store, act
        self.since = time.time_ns() - 10**9
        lay_ground(store)
        model = Store(store.root.with_name("model"), MemoryDriver)
        lay_ground(model)
        act.ready(model.driver)
        self.before = self.state(model)
        act.do(model.driver)
        self.after = self.state(model)
        self.usage = store.driver.disk_usage()

    def state(self, store: Store, *, ground: bool = True) -> State:
        """Return what a store holds, seen by a driver object that wrote nothing. ``ground``: look
        at that too, which shows at the end what any of the faults did to it."""
        return {
            id: (
                held,
                parent,
                self._settled(id, store.look(id)) if ground or id not in GROUND else {},
            )
            for id, (held, parent) in store.held().items()
        }

    def _settled(self, id: str, picture: Picture) -> Picture:
        """Return the picture with one mtime for all that no two stores agree on."""
        settled = fresh_marked(picture, self.since)
        if id == key("bare"):  # an empty root's mtime is nobody's business
            settled[""] = attrs.evolve(settled[""], mtime_ns=None)
        if id == key("victim"):
            root = settled[""]
            settled[""] = attrs.evolve(root, mtime_ns=None) if root.mtime_ns != 1 else root
            for path in {*self.act.touched} & settled.keys():
                settled[path] = attrs.evolve(settled[path], mtime_ns=None)
            if self.act.torn is not None and self.act.torn in settled:
                torn = settled[self.act.torn]
                settled[self.act.torn] = attrs.evolve(torn, digest="", size=0)
        return settled

    # -- trying ---------------------------------------------------------------------------------

    def faults(self, most: int, error: int | None) -> list[Fault]:
        """Do the act without a fault; return faults at its writes, ``most`` of them unless the run
        is thorough: the first, the last, and evenly between."""
        points = range(len(self._undisturbed().points))
        lasting = error == errno.ENOSPC
        return [Fault(at, error, lasting=lasting) for at in self._some(points, most)]

    def cuts(self, most: int) -> list[Fault]:
        """Do the act without a fault; return power cuts where something would be lost. Not in a
        session: what it wrote counts once it has ended."""
        if self.act not in CALLS:
            return []
        losses = self._undisturbed().losses
        return [Fault(at, power=True) for at in self._some(losses, most)]

    def _undisturbed(self) -> Watched:
        self._begin()
        with Watched(self._work) as process:
            process.rest()
        self._holds("the act without a fault", self.after)
        return process

    def _some(self, points: Sequence[int], most: int) -> list[int]:
        count = len(points)
        if self.kit.thorough or count <= most:
            return list(points)
        return sorted({points[number * (count - 1) // (most - 1)] for number in range(most)})

    def killed(self, fault: Fault) -> None:
        """Kill the process there; then all is as before, or as after."""
        self._begin()
        with Watched(self._work, fault) as process:
            acknowledged = process.rest() == ["done"]
        with self._after(f"{fault} {process.hit}"):
            self.store.reopen()
            self.store.driver.recover()
            if acknowledged:
                self._holds("the act had returned before", self.after)
            else:
                self._holds("the act hadn't returned", killed=True)
            if fault.power and set(self.store.held()) == set(self.before):
                # What was lost must not pass for what it was when it is needed again.
                self.act.do(self.store.driver)
                self._holds("doing it again", self.after)

    def cut_after(self) -> None:
        """Cut the power when the act has just returned."""
        self._begin()
        with Watched(self._work) as process:
            assert process.hear() == "done"
            process.cut_power()
        with self._after("a power cut"):
            self.store.reopen()
            self.store.driver.recover()
            self._holds("the act had returned before", self.after)

    def failed(self, fault: Fault) -> None:
        """Let that write fail; the call says so and all is as before, or it is as after. Then let
        the same driver object do it again."""
        self._begin()
        with Watched(self._work, fault) as process:
            said = process.hear()
            with self._after(f"{fault} {process.hit}"):
                assert said is not None, "the process is dead"
                if said == "done":  # what failed wasn't needed
                    self._holds("the act said nothing of it", self.after)
                else:
                    assert said.startswith("raised"), f"what is raised says so: {said}"
                    self._holds(said, recovering=fault.lasting)
                process.fault = None
                process.answer()
                again = process.rest()
                assert again in ([], ["again"]), f"it works again: {again}"
                self.store.reopen()
                expected = None if self.act.each else self.after
                self._holds("doing it again", expected, recovering=fault.lasting)

    def cut_and_removed(self) -> None:
        """Cut the power when the act has just made the victim; it can be removed all the same."""
        self._begin()
        with Watched(self._work) as process:
            assert process.hear() == "done"
            process.cut_power()
        with self._after("a power cut"):
            self.store.reopen()
            self.store.driver.recover()
            with suppress(NotFoundError):
                self.store.driver.remove(key("victim"))
            self._holds("the victim was removed", self.before)
        self.succeeds()

    @contextmanager
    def _after(self, what: str) -> Generator[None]:
        """Let whatever fails meanwhile say after what."""
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:
            error.add_note(f"after {what}")
            raise

    def succeeds(self) -> None:
        """Do the act here; nothing of all those before is left behind."""
        self._begin()
        self.act.do(self.store.driver)
        self._holds("the act, after all the faults, without one", self.after, ground=True)
        clear(self.store.driver)
        self.store.driver.recover()
        self.store.driver.collect()
        if getattr(self.kit, "on_disk", True):
            left = self.store.driver.disk_usage() - self.usage
            assert left < 1 << 20, f"faults leave nothing behind that adds up: {left} bytes"
        self.store.assert_layers()

    def _forgive_unmade(self, found: State) -> None:
        """Take what was being made for made, if it is there as what it should be."""
        if self.act.made is None or key("victim") not in found:
            return
        victim = found[key("victim")][2]
        want = self.after[key("victim")][2][self.act.made]
        have = victim.get(self.act.made)
        if have is not None and have.kind is want.kind:
            victim[self.act.made] = want

    # -- how ------------------------------------------------------------------------------------

    def _begin(self) -> None:
        clear(self.store.driver)
        self.act.ready(self.store.driver)

    def _work(self, watch: Watch) -> None:
        """What the process does."""
        with self.kit.open_driver(self.store.root) as driver:
            driver.durable = True
            watch.begin()
            try:
                self.act.do(driver)
            except Exception as error:
                watch.say(_said(error))
            else:
                watch.say("done")
                return
            try:
                self.act.do(driver)
            except Exception as error:
                # It may have been done, but for telling us.
                watch.say("again" if _is_done(error) else _said(error))
            else:
                watch.say("again")

    def _holds(
        self,
        since: str,
        expected: State | None = None,
        *,
        killed: bool = False,
        recovering: bool = False,
        ground: bool = False,
    ) -> None:
        """Fail unless the store holds this, or what it had before or after the act.

        ``recovering``: or what it has once it was recovered. ``ground``: look at that too.
        """
        ground = ground or self.kit.thorough
        found = self.state(self.store, ground=ground)
        # To undo what was done may take space too.
        strict = self.act.undone and not killed and not recovering
        parted = self._parted(expected, found, killed=killed, strict=strict, ground=ground)
        if all(parted) and recovering:
            self.store.driver.recover()
            found = self.state(self.store, ground=ground)
            parted = self._parted(expected, found, killed=killed, strict=strict, ground=ground)
        if all(parted):
            shown = "\n  or ".join("; ".join(lines[:3]) for lines in parted)
            promise = "each call succeeds whole or leaves the store as it was"
            pytest.fail(f"broken promise: {promise}\n  {since}\n  {shown}")
        for id in found if ground else found.keys() - GROUND:
            for problem in self.store.driver.verify(id, deep=True):
                pytest.fail(f"broken promise: a sound store verifies\n  {since}\n  {problem}")

    def _parted(
        self, expected: State | None, found: State, *, killed: bool, strict: bool, ground: bool
    ) -> list[list[str]]:
        """Return how what was found differs from each of what may be; empty if it doesn't."""
        allowed = [self.before, self.after] if expected is None else [expected]
        if not ground:
            allowed = [_groundless(state) for state in allowed]
        if killed:
            self._forgive_unmade(found)
        if self.act.each and expected is None and not strict:
            # Some of them: each of them whole.
            union = {**allowed[0], **allowed[1]}
            allowed.append({id: union[id] for id in union if id in found or id in GROUND})
        return [_differing(one, found) for one in allowed]


#: What a call fails with that was done already.
_DONE = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ENODATA}


def _is_done(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _DONE
    return isinstance(error, (ConflictError, NotFoundError))


def _said(error: Exception) -> str:
    known = isinstance(error, (OSError, CowshedError))
    return f"{'raised' if known else 'raises'} {type(error).__name__}: {error}"


def _groundless(state: State) -> State:
    """Return the state without what the ground shows."""
    return {
        id: (held, parent, {} if id in GROUND else picture)
        for id, (held, parent, picture) in state.items()
    }


def _differing(expected: State, found: State) -> list[str]:
    """Return where two states differ, as sentences."""
    lines: list[str] = []
    for id in expected.keys() | found.keys():
        want, have = expected.get(id), found.get(id)
        if want is None or have is None:
            kind = (want or have or (Held.LAYER,))[0].value
            lines.append(f"{kind} {id[:12]} is {'missing' if have is None else 'there'}")
        elif want[:2] != have[:2]:
            lines.append(f"{id[:12]} should be {want[:2]}, is {have[:2]}")
        else:
            lines += [f"in {want[0].value} {line}" for line in differences(want[2], have[2])]
    return lines
