"""The engine: runs are shared only where that changes no byte; deadlines, bounds, fairness, end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_artifacts import write_counting, write_endless, write_mean
from small_artifacts import write_forecaster

import artifact
from artifact.arrays import Array
from artifact.batching import BATCH_SIZES
from artifact.errors import DeadlineError, InputError, RunError
from serve.engine import Engine, Job, _take
from serve.errors import DeadlineExceeded, NotReady, Overloaded
from serve.repository import Served

SOON = 60.0
UNLUCKY = -13.0


class Fake:
    """A model that doubles `x` once its gate is open, and remembers rows and deadlines of runs."""

    id = "fake"

    def __init__(self, sizes: tuple[int, ...] | None = (1,), exclusive: bool = False) -> None:
        self.sizes = sizes
        self.exclusive = exclusive
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.runs: list[list[float]] = []
        self.deadlines: list[float] = []
        self.probed: list[object] = []
        self.may_probe = threading.Event()
        self.may_probe.set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def joinable(self, shape: object) -> tuple[int, ...] | None:
        return self.sizes

    def certify(self, shape: object) -> None:
        self.probed.append(shape)
        assert self.may_probe.wait(SOON)
        self.sizes = (1, 2, 4)

    def check_values(self, inputs: Mapping[str, Array]) -> None:
        if not np.isfinite(inputs["x"]).all():
            row = int(np.argmin(np.isfinite(inputs["x"]).all(axis=1)))
            raise InputError(f"x: not a finite number at batch {row}", "x")

    def run(self, inputs: Mapping[str, Array], deadline: float) -> dict[str, Array]:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.runs.append(inputs["x"][:, 0].tolist())
            self.deadlines.append(deadline)
        self.started.set()
        try:
            assert self.gate.wait(SOON)
            if (inputs["x"] == UNLUCKY).any():
                raise RunError("the graph failed to run: an unlucky number")
            if time.monotonic() >= deadline:
                raise DeadlineError("late")
            return {"y": inputs["x"] * 2}
        finally:
            with self._lock:
                self.at_once -= 1


def serve(model: Any, name: str = "m") -> Served:
    return Served(name, "1", model, Path(name))


def rows(*values: float, width: int = 1) -> dict[str, Array]:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], width, axis=1)}


@contextmanager
def running(slots: int = 1, *bounds: int) -> Iterator[Engine]:
    engine = Engine(slots, *(bounds or (64,)))
    try:
        yield engine
    finally:
        engine.close()
        assert engine.join(SOON)


async def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        await asyncio.sleep(0.002)


async def ask(
    engine: Engine, served: Served, inputs: dict[str, Array], seconds: float = SOON
) -> Array:
    (answer,) = (await engine.predict(served, inputs, time.monotonic() + seconds))[0].values()
    return answer


async def settled(*work: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


async def behind_a_gate(
    engine: Engine, model: Fake, served: Served, questions: list[dict[str, Array]]
) -> list[Any]:
    """One request occupies the only slot until all the others wait; then all are answered."""
    model.gate.clear()
    model.started.clear()
    first = asyncio.create_task(ask(engine, served, rows(0)))
    await until(model.started.is_set)
    others = [asyncio.create_task(ask(engine, served, inputs)) for inputs in questions]
    await until(lambda: engine.waiting == len(questions))
    model.gate.set()
    return (await settled(first, *others))[1:]


# The promise, with real models.


class Known:
    """A real model with rows whose lone answers are known, and a record of its runs."""

    def __init__(self, path: Path, shapes: list[tuple[int, ...]]) -> None:
        self.model = artifact.load(path)
        self.served = serve(self.model, path.name)
        self.input = self.model.manifest.inputs[0].name
        self.ran: list[tuple[tuple[int, ...], int]] = []
        self.rows: list[Array] = []
        self.alone: list[Array] = []
        generator = np.random.default_rng(4)
        for shape in shapes:
            pool = generator.normal(1, 3, (30, *shape)).astype(np.float32)
            lone = [self.model.predict({self.input: pool[i : i + 1]}) for i in range(len(pool))]
            self.rows.append(pool)
            self.alone.append(np.concatenate([next(iter(answer.values())) for answer in lone]))
        run = self.model._run

        def record(inputs: Mapping[str, Array], *rest: Any) -> dict[str, Array]:
            self.ran.append((inputs[self.input].shape[1:], len(inputs[self.input])))
            return run(inputs, *rest)

        self.model._run = record  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[Known]:
    folder = tmp_path_factory.mktemp("artifacts")
    invariant = write_forecaster(folder / "invariant", dynamic_channel=True)
    return [
        Known(invariant, [(20, channels, 9) for channels in (4, 1, 7)]),
        Known(write_mean(folder / "dependent"), [(80, 64)]),
        Known(write_counting(folder / "up-to-two", 2), [(3,)]),
    ]


def test_random_mixes_get_their_lone_answers_to_the_byte(known: list[Known]) -> None:
    """Models, row shapes, rows and moments of arrival at random, 1 to 3 slots."""
    invariant, dependent, up_to_two = known
    assert invariant.model.policies()[(("neural", (20, 4, 9)),)].sizes == BATCH_SIZES
    assert dependent.model.policies()[(("x", (80, 64)),)].sizes == (1,)
    assert up_to_two.model.policies()[(("x", (3,)),)].sizes == (1, 2)
    generator = np.random.default_rng(7)

    async def one(engine: Engine, which: Known, shape: int, picked: Array, delay: float) -> None:
        await asyncio.sleep(delay)
        inputs = {which.input: which.rows[shape][picked]}
        answer = await ask(engine, which.served, inputs)
        assert answer.tobytes() == which.alone[shape][picked].tobytes(), (which.input, picked)

    async def mix(engine: Engine) -> None:
        work = []
        for _ in range(int(generator.integers(2, 40))):
            which = known[generator.choice(3, p=(0.6, 0.2, 0.2))]
            picked = generator.integers(0, 30, int(generator.choice((1, 1, 1, 2, 3, 5, 8, 20))))
            shape = int(generator.integers(len(which.rows)))
            work.append(one(engine, which, shape, picked, float(generator.choice((0, 0.001)))))
        await asyncio.gather(*work)

    for index in range(60):
        with running(1 + index % 3) as engine:
            asyncio.run(mix(engine))
    assert {size for _, size in dependent.ran} == {1}
    assert {size for _, size in up_to_two.ran} == {1, 2}
    assert max(size for _, size in invariant.ran) == 16
    assert {shape for shape, size in invariant.ran if size > 2} == {
        (20, channels, 9) for channels in (4, 1, 7)
    }
    for which, joined in ((invariant, True), (dependent, False), (up_to_two, True)):
        statistics = which.served.statistics
        assert (statistics.runs.count < statistics.waits.count) == joined, which.input
        assert sum(runs for runs, _ in statistics.batches.values()) == statistics.runs.count


def test_requests_that_wait_are_run_together(known: list[Known]) -> None:
    """Deterministic: the only slot is taken while five requests of one shape arrive."""
    model, blocker = known[0], Fake()

    async def scenario(engine: Engine) -> None:
        blocker.gate.clear()
        first = asyncio.create_task(ask(engine, serve(blocker), rows(0)))
        await until(blocker.started.is_set)
        pool, alone = model.rows[0], model.alone[0]
        sizes = (1, 3, 1, 2, 1)
        starts = np.cumsum((0, *sizes))
        work = [
            asyncio.create_task(ask(engine, model.served, {"neural": pool[start : start + size]}))
            for start, size in zip(starts, sizes, strict=False)
        ]
        await until(lambda: engine.waiting == 5)
        model.ran.clear()
        blocker.gate.set()
        answers = await asyncio.gather(*work)
        await first
        assert np.concatenate(answers).tobytes() == alone[:8].tobytes()

    with running() as engine:
        asyncio.run(scenario(engine))
    assert model.ran == [((20, 4, 9), 8)]


# What is taken together.


@given(
    sizes=st.sets(st.sampled_from(BATCH_SIZES[1:])),
    waiting=st.lists(st.integers(1, 20), min_size=1, max_size=20),
)
def test_rows_are_counted_not_requests(sizes: set[int], waiting: list[int]) -> None:
    certified = (1, *sorted(sizes))
    loop = asyncio.new_event_loop()
    served = serve(Fake(certified))
    jobs = [Job(rows(*range(size)), 0.0, loop) for size in waiting]
    loop.close()
    queue = deque(jobs)
    taken = []
    while queue:
        left = len(queue)
        together = _take((served, ()), queue)
        taken += together
        assert len(queue) == left - len(together) < left
        count = sum(job.rows for job in together)
        assert len(together) == 1 or count <= certified[-1]
        # As many as make the largest certified number of rows, where some do.
        sums = list(accumulate(job.rows for job in (*together, *queue)))
        assert not any(reached in certified for reached in sums[len(together) :])
        assert count in certified or not any(reached in certified for reached in sums)
    assert taken == jobs


def test_a_shape_not_seen_before_is_probed_beside_the_runs_that_do_not_wait_for_it() -> None:
    """Lone rows until the probe is over, whoever asks; then they share runs. It is probed once."""
    model = Fake(None)
    model.may_probe.clear()
    questions = [rows(value) for value in range(1, 6)]

    async def scenario(engine: Engine) -> None:
        served = serve(model)
        answers = await behind_a_gate(engine, model, served, questions)
        assert [float(answer[0, 0]) for answer in answers] == [2, 4, 6, 8, 10]
        assert [len(run) for run in model.runs] == [1] * 6
        model.may_probe.set()
        await until(lambda: model.sizes is not None)
        model.runs.clear()
        await behind_a_gate(engine, model, served, questions)
        assert [len(run) for run in model.runs] == [1, 4, 1]

    with running() as engine:
        asyncio.run(scenario(engine))
    assert model.probed == [(("x", (1,)),)]


def test_one_row_at_a_time_asks_for_no_probe() -> None:
    model = Fake(None)
    with running() as engine:
        asyncio.run(ask(engine, serve(model), rows(1)))
    assert model.probed == []


# Failures.


@pytest.mark.parametrize("bad", [UNLUCKY, np.nan])
def test_one_failing_request_does_not_spoil_its_neighbours(bad: float) -> None:
    model = Fake((1, 2, 4, 8))
    questions = [rows(1), rows(2, 3), rows(5, 5, bad), rows(4), rows(6)]
    with running() as engine:
        one, two, failed, four, six = asyncio.run(
            behind_a_gate(engine, model, serve(model), questions)
        )
    assert (one.tolist(), two.tolist()) == ([[2]], [[4], [6]])
    assert (four.tolist(), six.tolist()) == ([[8]], [[12]])
    if bad == UNLUCKY:
        assert isinstance(failed, RunError)
        assert len(model.runs[1]) == 8, "nothing was joined"
    else:
        assert isinstance(failed, InputError)
        assert "batch 2" in str(failed), "the place is that in the caller's own array"


def test_a_fault_of_the_service_reaches_its_request_and_the_threads_live_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Fake((1, 2))

    def fail(*_: object) -> dict[str, Array]:
        raise MemoryError("too little")

    async def scenario(engine: Engine) -> None:
        served = serve(model)
        with monkeypatch.context() as patch:
            patch.setattr(model, "run", fail)
            failed = await settled(*(ask(engine, served, rows(1)) for _ in range(5)))
        assert [type(error) for error in failed] == [MemoryError] * 5
        assert (await ask(engine, served, rows(1))).tolist() == [[2]]

    with running() as engine:
        asyncio.run(scenario(engine))


# Deadlines.


def test_a_shared_run_ends_early_only_when_all_in_it_are_late() -> None:
    model = Fake((1, 2))

    async def scenario(engine: Engine) -> None:
        served = serve(model)
        model.gate.clear()
        first = asyncio.create_task(ask(engine, served, rows(0)))
        await until(model.started.is_set)
        short = asyncio.create_task(ask(engine, served, rows(1), 0.3))
        long = asyncio.create_task(ask(engine, served, rows(2), SOON))
        await until(lambda: engine.waiting == 2)
        model.gate.set()
        await first
        model.gate.clear()
        await until(lambda: len(model.runs) == 2)
        start = time.monotonic()
        (error,) = await settled(short)
        assert isinstance(error, DeadlineExceeded)
        assert time.monotonic() - start < SOON / 2
        assert not long.done()
        model.gate.set()
        assert (await long).tolist() == [[4]]

    with running() as engine:
        # The second run must find the gate closed.
        run = model.run

        def slow(inputs: Mapping[str, Array], deadline: float) -> dict[str, Array]:
            if len(inputs["x"]) == 2:
                model.gate.clear()
            return run(inputs, deadline)

        model.run = slow  # type: ignore[method-assign]
        asyncio.run(scenario(engine))
    assert model.runs[1] == [1, 2]
    assert model.deadlines[1] > time.monotonic()


def test_an_endless_shared_run_is_ended_at_the_last_of_its_deadlines(tmp_path: Path) -> None:
    model = artifact.load(write_endless(tmp_path / "a"))
    assert model.joinable((("x", (1,)),)) == BATCH_SIZES
    blocker = Fake()

    async def scenario(engine: Engine) -> list[float]:
        blocker.gate.clear()
        first = asyncio.create_task(ask(engine, serve(blocker), rows(0)))
        await until(blocker.started.is_set)
        start = time.monotonic()
        ends: list[float] = []

        async def late(seconds: float) -> None:
            with pytest.raises((DeadlineExceeded, DeadlineError)):
                await ask(engine, endless, rows(1), seconds)
            ends.append(time.monotonic() - start)

        endless = serve(model, "endless")
        work = [asyncio.create_task(late(seconds)) for seconds in (0.3, 1.2)]
        await until(lambda: engine.waiting == 2)
        blocker.gate.set()
        await asyncio.gather(first, *work)
        # The only slot is free again: the run is over.
        assert (await ask(engine, endless, rows(-1))).shape == (1, 1)
        assert endless.statistics.batches[2][0] == 1
        assert endless.statistics.batches[2][1] > 0.5
        return ends

    with running() as engine:
        first, second = asyncio.run(scenario(engine))
    assert 0.25 < first < second
    assert second > 1.1


def test_late_and_cancelled_requests_leave_the_queue() -> None:
    model = Fake((1, 2, 4))

    async def scenario(engine: Engine) -> None:
        served = serve(model)
        model.gate.clear()
        first = asyncio.create_task(ask(engine, served, rows(0)))
        await until(model.started.is_set)
        late = asyncio.create_task(ask(engine, served, rows(1), 0.05))
        left = asyncio.create_task(ask(engine, served, rows(2)))
        stays = asyncio.create_task(ask(engine, served, rows(3)))
        await until(lambda: engine.waiting == 3)
        left.cancel()
        (error, cancelled) = await settled(late, left)
        assert isinstance(error, DeadlineExceeded)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert engine.waiting == 1
        first.cancel()  # what runs cannot be taken out; its answer is dropped
        await settled(first)
        model.gate.set()
        assert (await stays).tolist() == [[6]]
        assert engine.waiting == 0

    with running() as engine:
        asyncio.run(scenario(engine))
    assert model.runs == [[0], [3]]


def test_a_request_that_comes_late_is_not_run() -> None:
    model = Fake()

    async def scenario(engine: Engine) -> None:
        model.gate.clear()
        first = asyncio.create_task(ask(engine, serve(model), rows(0)))
        await until(model.started.is_set)
        with pytest.raises(DeadlineExceeded):
            await ask(engine, serve(model), rows(1), -1)
        model.gate.set()
        await first

    with running() as engine:
        asyncio.run(scenario(engine))
    assert model.runs == [[0]]


# Turns, places, the end.


def test_no_model_and_no_shape_starves_another() -> None:
    busy, other = Fake(), Fake()
    other.runs = busy.runs

    async def scenario(engine: Engine) -> None:
        flood, single = serve(busy, "busy"), serve(other, "other")
        busy.gate.clear()
        work = [asyncio.create_task(ask(engine, flood, rows(0)))]
        await until(busy.started.is_set)
        work += [asyncio.create_task(ask(engine, flood, rows(value))) for value in range(1, 20)]
        await until(lambda: engine.waiting == 19)
        work.append(asyncio.create_task(ask(engine, flood, rows(99, width=2))))
        work.append(asyncio.create_task(ask(engine, single, rows(50))))
        await until(lambda: engine.waiting == 21)
        busy.gate.set()
        await asyncio.gather(*work)

    with running() as engine:
        asyncio.run(scenario(engine))
    assert busy.runs == [[0], [1], [99], [50], *([value] for value in range(2, 20))]


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_exclusive_model_leaves_the_other_slots_to_others(exclusive: bool) -> None:
    alone, other = Fake(exclusive=exclusive), Fake()

    async def scenario(engine: Engine) -> None:
        first, second = serve(alone, "alone"), serve(other, "other")
        alone.gate.clear()
        work = [asyncio.create_task(ask(engine, first, rows(value))) for value in range(6)]
        await until(alone.started.is_set)
        if not exclusive:
            await until(lambda: alone.at_once == 3)
            alone.gate.set()
        answers = await asyncio.gather(*(ask(engine, second, rows(value)) for value in range(6)))
        assert [float(answer[0, 0]) for answer in answers] == [0, 2, 4, 6, 8, 10]
        alone.gate.set()
        answers = await asyncio.gather(*work)
        assert [float(answer[0, 0]) for answer in answers] == [0, 2, 4, 6, 8, 10]

    with running(3) as engine:
        asyncio.run(scenario(engine))
    assert alone.most_at_once == (1 if exclusive else 3)


def test_places_and_bytes_are_bounded() -> None:
    with running(1, 2, 1000) as engine:
        with engine.admit() as first, engine.admit() as second, engine.admit() as third:
            assert engine.pending == 0  # their bodies are still on their way
            first.hold(400)
            first.hold(300)  # less than is held already
            second.check(600)
            with pytest.raises(Overloaded, match="bodies of 400 bytes"):
                second.check(601)
            assert engine.pending_bytes == 400
            second.hold(600)
            with pytest.raises(Overloaded, match="bodies of 1000 bytes"):
                second.hold(601)
            assert engine.pending_bytes == 1000
            first.take()
            second.take()
            assert engine.pending == 2
            with pytest.raises(Overloaded, match="2 predictions are pending"):
                third.take()
            with pytest.raises(Overloaded, match="2 predictions are pending"), engine.admit():
                pass
            assert engine.rejected == 2
        assert (engine.pending, engine.pending_bytes) == (0, 0)
        with engine.admit() as only:
            only.hold(5000)  # one alone may be larger than all together
            with engine.admit() as other, pytest.raises(Overloaded):
                other.hold(1)
        assert (engine.pending, engine.pending_bytes) == (0, 0)


def test_closing_answers_what_runs_and_refuses_what_waits() -> None:
    model = Fake()

    async def scenario(engine: Engine) -> None:
        served = serve(model)
        model.gate.clear()
        first = asyncio.create_task(ask(engine, served, rows(1)))
        await until(model.started.is_set)
        waiting = [asyncio.create_task(ask(engine, served, rows(value))) for value in (2, 3)]
        await until(lambda: engine.waiting == 2)
        engine.close()
        refused = await settled(*waiting, ask(engine, served, rows(4)))
        assert [type(error) for error in refused] == [NotReady] * 3
        assert not engine.join(0.05)
        model.gate.set()
        assert (await first).tolist() == [[2]]

    with running() as engine:
        asyncio.run(scenario(engine))
    assert model.runs == [[1]]


def test_work_aside_has_a_deadline() -> None:
    gate = threading.Event()

    async def scenario(engine: Engine) -> None:
        soon = time.monotonic() + SOON
        assert await engine.aside(lambda: 7, soon) == 7
        with pytest.raises(DeadlineExceeded):
            await engine.aside(lambda: gate.wait(SOON), time.monotonic() + 0.05)
        gate.set()
        with pytest.raises(ZeroDivisionError):
            await engine.aside(lambda: 1 // 0, soon)

    with running() as engine:
        asyncio.run(scenario(engine))


def test_inputs_of_failed_requests_and_dropped_models_do_not_wait_for_the_garbage_collector() -> (
    None
):
    """Under load with large bodies, what waits for a collection would fill the memory."""

    gone: list[weakref.ref[Any]] = []

    async def fail(
        engine: Engine, served: Served, value: float, seconds: float, error: type[Exception]
    ) -> None:
        inputs = rows(value)
        gone.append(weakref.ref(inputs["x"]))
        try:  # pytest.raises would keep the error
            await engine.predict(served, inputs, time.monotonic() + seconds)
        except error:
            return
        raise AssertionError("it did not fail")

    async def some_fail(engine: Engine) -> None:
        model = Fake((1, 2))
        served = serve(model)
        gone.append(weakref.ref(model))
        await fail(engine, served, UNLUCKY, SOON, RunError)
        model.gate.clear()
        model.started.clear()
        late = asyncio.create_task(fail(engine, served, 1, 0.3, DeadlineExceeded))
        await until(model.started.is_set)
        waits = [
            asyncio.create_task(fail(engine, served, UNLUCKY, SOON, RunError)),
            asyncio.create_task(fail(engine, served, np.nan, SOON, InputError)),
        ]
        await fail(engine, served, 2, 0.01, DeadlineExceeded)
        await late
        model.gate.set()
        await asyncio.gather(*waits)

    async def scenario(engine: Engine) -> None:
        await some_fail(engine)
        assert len(gone) == 6
        await until(lambda: not any(ref() is not None for ref in gone))

    gc.collect()
    gc.disable()
    try:
        with running() as engine:
            asyncio.run(scenario(engine))
    finally:
        gc.enable()
