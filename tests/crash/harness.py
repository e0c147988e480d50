"""Runs a shop whose workers are killed, freezes one, leaves one dead, and has it all judged."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from paynexus_async.durable._orders import prompt_id
from paynexus_async.sandbox import SandboxServer

from .. import postgres
from .judge import Verdict, judge
from .ledger import AIMS, AimedLedger
from .rows import Postgres, SQLite, counts_open, create_effects, in_window, lock_waits, owned
from .shop import NAME, Life, Shop
from .worker import TERMS, Released, executor_id
from .zygote import Worker, Zygote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .rows import Database

__all__ = ["Run", "crash"]

_WORKERS: Final = {"sqlite": 1, "postgres": 3}
_FROZEN, _DEAD = 1, 2
_FROZEN_SECONDS: Final = 15.0
_FREEZES: Final = (0.15, 0.3, 0.45)
"""After such a part of the kills; the last one alone where there are not many."""
_FOR_A_FREEZE, _FOR_A_FREEZE_OF_FEW = 60, 9
"""Orders that are kept back for each freeze, and for the one that is left dead: on a slow machine
whoever is frozen would have nothing under way else, and nothing would be shown."""
_MANY: Final = 300
_CLUMPS: Final = (1, 1, 1, 2, 3, 5, 8, 16)
"""Orders come in clumps of such sizes: alone, and many at a time."""
_MOMENTS: Final = {"moment": 60, **dict.fromkeys(AIMS, 8), "handler": 8, "committed": 8}
_MOMENTS_OF_FEW: Final = {"moment": 30, **dict.fromkeys(AIMS, 15), "handler": 10, "committed": 15}
_LIFE_SECONDS: Final = (0.8, 3.0)
"""The longest life, beyond what it takes to come to the first initiate (times one and a half): of
most, and of one in five, so that things get on."""
_BEGINNING_SECONDS_MAX: Final = 1.5
_LONG_SHARE: Final = 0.25
_RELEASE_SECONDS: Final = 0.03
_WATCH_SECONDS, _WATCH_SECONDS_OF_FEW = 20.0, 8.0
"""A late customer has paid after 4.5 s."""
_SETTLE_SECONDS: Final = 120.0
_SETTLE_SECONDS_AN_ORDER: Final = 0.3


@attrs.define(kw_only=True)
class Run:
    """What is asked for, and, afterwards, what came of it.

    Attributes:
        orders: how many.
        kills: how many.
        database: `sqlite` or `postgres`.
        is_transactional: whether the handler writes in a transaction with our row.
        seed: of everything that is drawn; the processors' own timing is not.
        defect: what is planted.
        freezes: whether, with several workers, one is frozen, and one left dead.
        shows: whether progress is printed.
        verdict: of the judge.
        kinds: how many kills there were of each kind.
        in_window: how many fell between a claim and its recorded answer.
        windowed: the prompts that were in it.
        windowed_sent: those of them that the ledger has: they were out, and nobody knew it.
        before_claim: the prompts that were written down, and not claimed, at a kill.
        in_beginning: how many fell before the worker was ready.
        taken_over: what the frozen and the dead had under way, and how much others took over.
        waiting: how many sessions of the others waited for a lock when the frozen one went on.
        seconds: how long it took.
    """

    orders: int
    kills: int
    database: str = "sqlite"
    is_transactional: bool = True
    seed: int = 0
    defect: str = ""
    freezes: bool = True
    shows: bool = False
    verdict: Verdict = attrs.field(factory=Verdict)
    kinds: dict[str, int] = attrs.field(factory=dict)
    in_window: int = 0
    windowed: set[str] = attrs.field(factory=set)
    windowed_sent: int = 0
    before_claim: set[str] = attrs.field(factory=set)
    in_beginning: int = 0
    taken_over: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    waiting: int = 0
    seconds: float = 0.0

    def lines(self) -> Iterator[str]:
        mode = "transaction" if self.is_transactional else "at-least-once"
        yield (
            f"{self.orders:,} orders, {self.kills:,} kills, {self.database}, {mode}, "
            f"seed {self.seed}{f', planted: {self.defect}' if self.defect else ''}: "
            f"{self.verdict.violations} violations, {self.seconds:,.0f} s"
        )
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        yield f"  kills: {kinds}"
        yield f"  {'kills before the worker was ready':<62}{self.in_beginning:>8,}"
        yield f"  {'kills between a claim and its recorded answer':<62}{self.in_window:>8,}"
        yield f"  {'orders that were there at a kill':<62}{len(self.windowed):>8,}"
        yield f"  {'of those, with a prompt in the ledger':<62}{self.windowed_sent:>8,}"
        yield f"  {'orders written down, and unclaimed, at a kill':<62}{len(self.before_claim):>8,}"
        for who, (had, taken) in self.taken_over.items():
            yield f"  {f'what the {who} worker had under way, and was taken over':<62}{had:>4,}{taken:>4,}"
        if self.taken_over:
            yield f"  {'sessions that waited for locks of the frozen worker':<62}{self.waiting:>8,}"
        yield from self.verdict.lines()


def crash(run: Run) -> Run:
    """Carry a run out; SIGTERM cuts it short, and what was done by then is judged."""
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paynexus-crash-")))
        zygote = stack.enter_context(Zygote(folder))  # before there are threads
        if run.database == "sqlite":
            url, merchant_url = (
                f"sqlite:///{folder}/engine.sqlite",
                f"sqlite:///{folder}/shop.sqlite",
            )
            engine: Database = SQLite(folder / "engine.sqlite")
            merchant: Database = SQLite(folder / "shop.sqlite")
            dead: Database = SQLite(folder / "engine.sqlite", scratch=folder)
            driver = "sqlite+aiosqlite"
        else:
            server = stack.enter_context(postgres.cluster())
            url, merchant_url = server.create("engine"), server.create("shop")
            files = server.folder
            engine = dead = Postgres(url, files, "dbos.")
            merchant = Postgres(merchant_url, files)
            driver = "postgresql+psycopg"
        create_effects(merchant_url)
        ledger = AimedLedger(run.seed)
        sandbox = stack.enter_context(SandboxServer(ledger))
        shop = Shop(
            folder=str(folder),
            engine_url=url,
            merchant_url=merchant_url.replace(url.partition(":")[0], driver, 1),
            base_url=sandbox.url,
            orders=run.orders,
            workers=_WORKERS[run.database],
            seed=run.seed,
            is_transactional=run.is_transactional,
            defect=run.defect,
            watch_seconds=_WATCH_SECONDS if run.kills >= _MANY else _WATCH_SECONDS_OF_FEW,
        )
        night = _Night(run, shop, zygote, ledger, engine, dead)
        stops = signal.signal(signal.SIGTERM, lambda *_: night.stop())
        try:
            night.kill_all()
        finally:
            signal.signal(signal.SIGTERM, stops)
        night.settle(merchant)
        ledger.faults.clear()
        shop = attrs.evolve(shop, orders=run.orders)
        found = judge(shop, ledger, engine, merchant, folder)
        found.broken |= run.verdict.broken
        sent = {prompt_id(NAME, str(prompt.description), 1) for prompt in ledger.prompts}
        run.windowed_sent = len(run.windowed & sent)
        run.verdict = found
        if found.violations and run.shows:
            print((folder / "log").read_text()[-4_000:])
    run.seconds = time.monotonic() - began
    return run


class _Night:
    """One run's workers, and who kills them."""

    def __init__(
        self,
        run: Run,
        shop: Shop,
        zygote: Zygote,
        ledger: AimedLedger,
        engine: Database,
        dead: Database,
    ) -> None:
        self._run = run
        self._shop = shop
        self._zygote = zygote
        self._ledger = ledger
        self._engine = engine
        self._dead = dead
        self._released = Released(shop.folder)
        self._dice = random.Random(f"kills {run.seed}")
        self._lock = threading.Lock()
        self._begun = self._lives = self._killed = 0
        self._beginning_seconds = 1.0  # to the first initiate of a life, on this machine, now
        self._began = self._last_kill = time.monotonic()
        self._clumps: deque[int] = deque()
        while sum(self._clumps) < run.orders:
            self._clumps.append(self._dice.choice(_CLUMPS))
        is_many = run.kills >= _MANY
        self._freezes = _FREEZES if is_many else _FREEZES[-1:]
        if shop.workers == 1 or not run.freezes:
            self._freezes = ()
        self._for_a_freeze = _FOR_A_FREEZE if is_many else _FOR_A_FREEZE_OF_FEW
        self._kept_back = (len(self._freezes) + bool(self._freezes)) * self._for_a_freeze
        self._calm = threading.Event()
        self._alive: dict[int, Worker] = {}
        self._retired: set[int] = set()
        self._held: set[int] = set()
        self._is_stopped = self._is_planned_out = False
        self._left_by_dead: set[str] = set()
        self._error: BaseException | None = None

    # --- Killing

    def kill_all(self) -> None:
        """Kill as often as is asked, with as many workers as there are."""
        over = threading.Event()
        releasing = threading.Thread(target=self._release_until, args=(over,), daemon=True)
        slots = [
            threading.Thread(target=self._guard, args=(worker,), daemon=True)
            for worker in range(self._shop.workers)
        ]
        releasing.start()
        for slot in slots:
            slot.start()
        for part in self._freezes:
            self._wait_for_kills(round(self._run.kills * part), slots)
            self._freeze()
        if self._freezes:
            self._wait_for_kills(2 * self._run.kills // 3, slots)
            self._leave_dead()
        self._is_planned_out = True
        for slot in slots:
            slot.join()
        over.set()
        releasing.join()
        if self._is_stopped:
            self._run.orders, self._run.kills = self._released.count, self._killed
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Kill nobody any more, and let no orders come: what there is by then is judged."""
        self._is_stopped = True

    def _guard(self, worker: int) -> None:
        try:
            while self._is_due(worker):
                self._one_life(worker)
        except BaseException as error:  # noqa: BLE001  # raised where the harness waits
            self._error = error

    def _is_due(self, worker: int) -> bool:
        """Wait until it is to live again, for as long as somebody is still to be frozen."""
        while True:
            with self._lock:
                if self._is_stopped or self._error or worker in self._retired:
                    return False
                if self._begun < self._run.kills or self._calm.is_set():
                    self._begun += 1
                    return True
                if self._is_planned_out:
                    return False
            time.sleep(0.02)

    def _one_life(self, number: int) -> None:
        with self._lock:
            weights = _MOMENTS if self._run.kills >= _MANY else _MOMENTS_OF_FEW
            kind = self._dice.choices(list(weights), list(weights.values()))[0]
            longest = _LIFE_SECONDS[kind != "moment" or self._dice.random() < _LONG_SHARE]
            longest += 1.5 * min(self._beginning_seconds, _BEGINNING_SECONDS_MAX)
            moment = self._dice.uniform(0, longest) if kind == "moment" else longest
        is_calm = self._calm.is_set()
        kind = "moment" if is_calm else kind
        worker = self._begin(number, aim=kind if kind in {"handler", "committed"} else "")
        if is_calm:
            self._held.add(number)
        if kind in AIMS:
            self._ledger.aim(kind, worker)
            self._release_for(number)
        hit = worker.wait(moment)
        while is_calm and self._calm.is_set() and not hit:
            hit = worker.wait(0.05)
        self._held.discard(number)
        self._ledger.forget(worker)
        worker.signal(signal.SIGKILL)
        self._bury(worker, kind if hit or kind == "moment" else f"{kind} missed")

    def _begin(self, number: int, *, aim: str = "", is_last: bool = False) -> Worker:
        with self._lock:
            self._lives += 1
            life = Life(worker=number, number=self._lives, aim=aim, is_last=is_last)
        worker = self._zygote.begin(self._shop, life)
        self._alive[number] = worker
        return worker

    def _bury(self, worker: Worker, kind: str) -> None:
        ended = worker.reap()
        if ended != -signal.SIGKILL:
            self._run.verdict.hold("workers that ended by themselves", [f"{worker.life}: {ended}"])
            if self._run.shows:
                print((Path(self._shop.folder) / "log").read_text()[-20_000:], flush=True)
        claimed, unclaimed = set[str](), set[str]()
        is_ready = self._is_ready(worker)
        if is_ready:
            claimed, unclaimed = in_window(self._dead, executor_id(worker.life.worker))
        run = self._run
        with self._lock:
            self._killed += 1
            self._last_kill = time.monotonic()
            first = self._ledger.first_initiate(worker)
            if first is not None and kind in AIMS:  # then there was an order from the beginning
                self._beginning_seconds += 0.1 * (first - worker.began - self._beginning_seconds)
            run.kinds[kind] = run.kinds.get(kind, 0) + 1
            run.in_beginning += not is_ready
            run.in_window += bool(claimed - run.windowed)
            run.windowed |= claimed
            run.before_claim |= unclaimed
            if run.shows and self._killed % 50 == 0:
                seconds = self._last_kill - self._began
                words = f"{self._killed} kills, {run.in_window} in the window, {seconds:.0f} s"
                print(f"{words}, {self._beginning_seconds:.2f} s to an initiate", flush=True)

    def _is_ready(self, worker: Worker) -> bool:
        ready = Path(self._shop.folder) / f"ready-{worker.life.worker}"
        return ready.exists() and ready.read_text() == str(worker.life.number)

    def _release_until(self, over: threading.Event) -> None:
        """Let orders come while workers live and die, as many as the kills so far call for."""
        while not over.wait(_RELEASE_SECONDS):
            now = time.monotonic()
            gap = (self._last_kill - self._began) / max(self._killed, 1)
            kills = self._killed + min((now - self._last_kill) / max(gap, 0.1), 1.0)
            wanted = self._run.orders * min(kills / self._run.kills, 1.0)
            while self._clumps and self._released.count + self._clumps[0] <= wanted:
                self._release(self._clumps.popleft())

    def _release(self, orders: int) -> None:
        with self._lock:
            self._release_to(self._released.count + orders)

    def _release_to(self, count: int) -> None:
        most = self._run.orders - self._kept_back
        self._released.count = max(self._released.count, min(count, most))

    def _release_for(self, worker: int) -> None:
        """Let orders come until there is a new one of a worker's own."""
        with self._lock:
            count = self._released.count
            own = count + (worker - count) % self._shop.workers
            self._release_to(own + 1)

    # --- Freezing, and leaving dead

    def _wait_for_kills(self, count: int, slots: list[threading.Thread]) -> None:
        while self._killed < count and any(slot.is_alive() for slot in slots):
            time.sleep(0.02)

    def _freeze(self) -> None:
        """Let nobody be killed, freeze one for longer than its lease, and see who takes it over."""
        with self._working(_FROZEN) as worker:
            executor = executor_id(_FROZEN)
            worker.signal(signal.SIGSTOP)
            had = owned(self._engine, executor)
            time.sleep(_FROZEN_SECONDS)
            left = owned(self._engine, executor)
            self._run.waiting += lock_waits(self._engine)
            worker.signal(signal.SIGCONT)
            self._note_taken_over("frozen", had, left)
            time.sleep(3)

    def _leave_dead(self) -> None:
        """Kill one that has something under way, and do not begin it again."""
        with self._working(_DEAD) as worker:
            self._retired.add(_DEAD)
            worker.signal(signal.SIGKILL)
            worker.is_reaped.wait(60)  # by the thread that has begun it, and closes its handle
            self._left_by_dead = owned(self._engine, executor_id(_DEAD))

    @contextmanager
    def _working(self, number: int) -> Iterator[Worker]:
        """Kill nobody meanwhile, and have one worker be at several orders."""
        self._calm.set()
        try:
            self._until(self._is_calm, 60)
            self._kept_back -= self._for_a_freeze
            self._release(self._for_a_freeze)
            if not self._until(lambda: self._is_at(number, 3), 20):  # customers were quick
                self._release_for(number)
                self._until(lambda: self._is_at(number, 1), 20)
            yield self._alive[number]
        finally:
            self._calm.clear()

    def _is_at(self, number: int, orders: int) -> bool:
        return len(owned(self._engine, executor_id(number))) >= orders

    def _is_calm(self) -> bool:
        are_held = len(self._held) == self._shop.workers - len(self._retired)
        return are_held and all(self._is_ready(self._alive[n]) for n in self._held.copy())

    def _note_taken_over(self, who: str, had: set[str], left: set[str]) -> None:
        before = self._run.taken_over.get(who, (0, 0))
        self._run.taken_over[who] = (before[0] + len(had), before[1] + len(had - left))
        promise = f"what the {who} worker had under way, and nobody took over"
        self._run.verdict.hold(promise, sorted(had & left))

    @staticmethod
    def _until(condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    # --- Coming to rest

    def settle(self, merchant: Database) -> None:
        """Kill nobody any more, until everything is over; the dead stays dead at first."""
        self._released.count = self._run.orders
        is_one_dead = _DEAD in self._retired
        had = self._left_by_dead
        last = [
            self._begin(n, is_last=True)
            for n in range(self._shop.workers)
            if not (is_one_dead and n == _DEAD)
        ]
        if is_one_dead:
            dead = executor_id(_DEAD)
            lease = TERMS.lease_seconds
            self._until(lambda: not had & owned(self._engine, dead), 4 * lease + 30)
            self._note_taken_over("dead", had, owned(self._engine, dead))
            last.append(self._begin(_DEAD, is_last=True))
        seconds = _SETTLE_SECONDS + _SETTLE_SECONDS_AN_ORDER * self._run.orders
        is_over = self._until(lambda: self._is_over(merchant), seconds)
        rest = [] if is_over else [f"{counts_open(self._engine)} rows are not over"]
        self._run.verdict.hold("rest after so long", rest)
        self._released.count = -1
        for worker in last:
            worker.wait(40)
            worker.signal(signal.SIGKILL)
            if ended := worker.reap():
                words = [f"{worker.life}: {ended}"]
                self._run.verdict.hold("workers that did not end when told", words)

    def _is_over(self, merchant: Database) -> bool:
        (told,) = merchant.ask("SELECT count(DISTINCT order_id) FROM effects")[0]
        time.sleep(0.3)
        return told == self._run.orders and not counts_open(self._engine)
