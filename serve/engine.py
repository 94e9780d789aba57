"""Bounded places, a queue, and threads that run what waits: together where it changes no byte.

A thread that becomes free takes the oldest waiting request, and with it those behind it that have
the same model and row shape, as far as the model's certificate says that rows of this shape may
share a run. Rows are counted, not requests. Nothing ever waits in order to be joined.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic, time
from typing import TypeVar

import numpy as np

from artifact.arrays import Array
from artifact.batching import RowShape, row_shape
from artifact.errors import DeadlineError
from serve.errors import DeadlineExceeded, NotReady, Overloaded
from serve.repository import Served

Arrays = Mapping[str, Array]
Result = TypeVar("Result")
Key = tuple[Served, RowShape]
logger = logging.getLogger("axonnx.serve")
STOPPING = "the service is stopping"


class Job:
    """One request's inputs on their way to an answer; `future` is None once nobody waits."""

    __slots__ = ("deadline", "future", "inputs", "loop", "queued", "rows", "waited")

    def __init__(self, inputs: Arrays, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.inputs = inputs
        self.rows = len(next(iter(inputs.values())))
        self.deadline = deadline
        self.loop = loop
        self.future: asyncio.Future[dict[str, Array]] | None = loop.create_future()
        self.queued = monotonic()
        self.waited = 0.0


class Place:
    """The bytes of a request, and once its body is there a pending place; left with `with`.

    So a body that does not come takes nobody's place. Entering raises Overloaded where all places
    are taken already.
    """

    __slots__ = ("_engine", "_taken", "size")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taken = False
        self.size = 0

    def __enter__(self) -> Place:
        self._check_places()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.pending -= self._taken
        self._engine.pending_bytes -= self.size

    def take(self) -> None:
        """Take the place: the body is there; raises Overloaded where none is left."""
        self._check_places()
        self._engine.pending += 1
        self._taken = True

    def hold(self, size: int) -> None:
        """Count `size` bytes in all, those that are there; raises Overloaded."""
        if size > self.size:
            self.check(size)
            self._engine.pending_bytes += size - self.size
            self.size = size

    def check(self, size: int) -> None:
        """Raise Overloaded where `size` bytes in all have no room beside those of others."""
        engine = self._engine
        others = engine.pending_bytes - self.size
        if others and others + size > engine.max_pending_bytes:
            raise Overloaded(
                f"bodies of {engine.pending_bytes} bytes are pending; send it again a little later"
            )

    def _check_places(self) -> None:
        engine = self._engine
        if engine.pending >= engine.max_pending:
            engine.rejected += 1
            raise Overloaded(
                f"{engine.pending} predictions are pending; send it again a little later"
            )


class Engine:
    """`slots` runs at a time; at most `max_pending` requests wait or run.

    `rejected` counts the requests beyond that, `cut` those that a stop has cut short.
    """

    def __init__(self, slots: int, max_pending: int, max_pending_bytes: int = 1 << 29) -> None:
        self.max_pending = max_pending
        self.max_pending_bytes = max_pending_bytes
        self.pending = 0
        self.pending_bytes = 0
        self.rejected = 0
        self.cut = 0
        self._changed = threading.Condition()
        self._queues: dict[Key, deque[Job]] = {}
        self._busy: set[Served] = set()
        self._closed = False
        self._aside = ThreadPoolExecutor(slots, thread_name_prefix="aside")
        self._threads = [
            threading.Thread(target=self._work, name=f"run-{index}", daemon=True)
            for index in range(slots)
        ]
        # Probing takes the time of many rows: in a thread of its own, and on nobody's deadline.
        self._uncertified: set[Key] = set()
        self._to_certify: SimpleQueue[Key | None] = SimpleQueue()
        self._threads.append(threading.Thread(target=self._certify, name="certify", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a run."""
        with self._changed:
            return sum(map(len, self._queues.values()))

    def admit(self) -> Place:
        """What a request enters before its body is read; that raises Overloaded."""
        return Place(self)

    async def predict(
        self, served: Served, inputs: Arrays, deadline: float
    ) -> tuple[dict[str, Array], float]:
        """The answer to inputs that `check_layout` let through, and the seconds they waited.

        `deadline` is a `time.monotonic()` value. Raises DeadlineExceeded, NotReady once the engine
        is closed, and what `Model.check_values` and `Model.run` raise. A run ends early only when
        every request in it is past its deadline.
        """
        loop = asyncio.get_running_loop()
        job = Job(inputs, deadline, loop)
        assert job.future is not None
        key = (served, row_shape(inputs))
        timer = loop.call_later(max(0.0, deadline - monotonic()), _expire, job)
        with self._changed:
            if self._closed:
                timer.cancel()
                raise NotReady(STOPPING)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = deque()
            queue.append(job)
            self._changed.notify()
        try:
            return await job.future, job.waited
        except BaseException:
            self._withdraw(key, job)
            raise
        finally:
            timer.cancel()
            job.future = None  # it holds the error, whose traceback holds the job and its inputs

    def _withdraw(self, key: Key, job: Job) -> None:
        """Take a job that nobody waits for out of the queue, where it is still there."""
        with self._changed:
            queue = self._queues.get(key)
            if queue is not None and job in queue:
                queue.remove(job)
                if not queue:
                    del self._queues[key]

    async def aside(self, work: Callable[[], Result], deadline: float) -> Result:
        """Run `work`, such as reading a large body, in a thread; raises DeadlineExceeded."""
        try:
            async with asyncio.timeout(deadline - monotonic()):
                return await asyncio.get_running_loop().run_in_executor(self._aside, work)
        except TimeoutError:
            raise DeadlineExceeded("the answer was not there in time; send fewer rows") from None

    def close(self) -> None:
        """Let the threads end once they are through with what they run; what waits is refused."""
        with self._changed:
            self._closed = True
            waiting = [job for queue in self._queues.values() for job in queue]
            self._queues.clear()
            self._changed.notify_all()
        if waiting:
            _hand_over(waiting, [NotReady(STOPPING) for _ in waiting])
        self._to_certify.put(None)
        self._aside.shutdown(wait=False, cancel_futures=True)

    def join(self, seconds: float) -> bool:
        """Wait so long for the threads of a closed engine; whether all have ended."""
        limit = monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, limit - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            key, jobs = taken
            try:
                self._run(key, jobs)
            finally:
                with self._changed:
                    self._busy.discard(key[0])
                    if key[0].model.exclusive:
                        self._changed.notify_all()
            del key, jobs, taken  # an unloaded model goes when its last run is over

    def _next(self) -> tuple[Key, list[Job]] | None:
        """Wait for jobs that may share a run; None once the engine is closed."""
        with self._changed:
            while not self._closed:
                if (taken := self._pick()) is not None:
                    return taken
                self._changed.wait()
            return None

    def _pick(self) -> tuple[Key, list[Job]] | None:
        """Jobs of the model and row shape whose turn it is; None where nothing can run now."""
        while True:
            key = next((key for key in self._queues if key[0] not in self._busy), None)
            if key is None:
                return None
            queue = self._queues.pop(key)
            jobs = _take(key, queue)
            if jobs and (queue or jobs[0].rows > 1):
                self._certify_later(key)
            if queue:  # behind the others: no model or shape starves another
                self._queues[key] = queue
            if jobs:
                if key[0].model.exclusive:
                    self._busy.add(key[0])
                return key, jobs

    def _certify_later(self, key: Key) -> None:
        """Have a shape probed beside the runs, once, where that would let its rows share one."""
        served, shape = key
        if served.model.joinable(shape) is None and key not in self._uncertified:
            self._uncertified.add(key)
            self._to_certify.put(key)

    def _certify(self) -> None:
        while (key := self._to_certify.get()) is not None and not self._closed:
            served, shape = key
            try:
                served.model.certify(shape)
            except Exception:
                logger.exception("model %s: its rows cannot be probed", served.name)
            with self._changed:
                self._uncertified.discard(key)
            del key, served

    def _run(self, key: Key, jobs: list[Job]) -> None:
        served = key[0]
        start = monotonic()
        for job in jobs:
            job.waited = start - job.queued
        try:
            answers: list[dict[str, Array] | Exception] = list(_answer(served, jobs))
        except DeadlineError as error:
            answers = [error] * len(jobs)
        except Exception as error:
            # One request's rows shall not spoil its neighbours' answers.
            answers = [_answer_alone(served, job) for job in jobs] if len(jobs) > 1 else [error]
        seconds = monotonic() - start
        with self._changed:
            rows = sum(job.rows for job in jobs)
            served.statistics.count_run(rows, [job.waited for job in jobs], seconds, time())
        _hand_over(jobs, answers)
        del answers  # an error's traceback holds this frame


def _take(key: Key, queue: deque[Job]) -> list[Job]:
    """Take the oldest job and those behind it that may run with it; none where all are over."""
    while queue and _is_over(queue[0]):
        queue.popleft()
    if not queue:
        return []
    served, shape = key
    sizes = served.model.joinable(shape) or (1,)
    fitting, certified, rows = 0, 0, 0
    for job in queue:
        rows += job.rows
        if rows > sizes[-1]:
            break
        fitting += 1
        if rows in sizes:
            certified = fitting
    return [queue.popleft() for _ in range(max(1, certified or fitting))]


def _answer(served: Served, jobs: list[Job]) -> Iterator[dict[str, Array]]:
    """Run the jobs together; one answer each, in their order."""
    deadline = max(job.deadline for job in jobs)
    if len(jobs) == 1:
        yield _checked_run(served, jobs[0].inputs, deadline)
        return
    joined = {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}
    outputs = _checked_run(served, joined, deadline)
    start = 0
    for job in jobs:
        yield {name: values[start : start + job.rows] for name, values in outputs.items()}
        start += job.rows


def _answer_alone(served: Served, job: Job) -> dict[str, Array] | Exception:
    try:
        return _checked_run(served, job.inputs, job.deadline)
    except Exception as error:
        return error


def _checked_run(served: Served, inputs: Arrays, deadline: float) -> dict[str, Array]:
    """Values are looked at here: in a thread, and once for all requests of a run."""
    served.model.check_values(inputs)
    return served.model.run(inputs, deadline)


def _hand_over(jobs: list[Job], answers: Sequence[dict[str, Array] | Exception]) -> None:
    """Let the event loop deliver answers; where it is closed nobody waits for them."""
    with suppress(RuntimeError):
        jobs[0].loop.call_soon_threadsafe(_deliver, jobs, answers)


def _deliver(jobs: list[Job], answers: Sequence[dict[str, Array] | Exception]) -> None:
    for job, answer in zip(jobs, answers, strict=True):
        if job.future is None or job.future.done():
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)


def _is_over(job: Job) -> bool:
    """Whether nobody waits for this job any more."""
    return job.future is None or job.future.done()


def _expire(job: Job) -> None:
    if job.future is not None and not job.future.done():
        late = DeadlineExceeded("the answer was not there in time; send fewer rows")
        job.future.set_exception(late)
