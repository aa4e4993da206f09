"""Single flight: one works, all get the result, and nobody's end is another's."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import traceback

import pytest

from aiohttp_oauth_middleware import LoginRequired, TokenUnavailable
from aiohttp_oauth_middleware.flight import Flight, Flights, finish, outlast
from tests.strict_server import turns


class Work:
    """Work that ends when it is told to."""

    def __init__(self) -> None:
        self.started = 0
        self.finished = 0
        self.gate = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self, flight: Flight[int]) -> int:
        self.started += 1
        await self.gate.wait()
        self.finished += 1
        if self.error is not None:
            raise self.error
        return self.started


async def gone(flights: Flights[int]) -> bool:
    await turns(3)
    return not flights.under_way()


async def test_F_01_all_who_come_meanwhile_share_one_result_and_who_comes_later_starts_anew() -> None:
    flights, work = Flights[int](), Work()
    waiters = [asyncio.ensure_future(flights.join("key", work)) for _ in range(1000)]
    await turns(2)
    assert work.started == 1
    work.gate.set()
    assert await asyncio.gather(*waiters) == [1] * 1000
    assert await gone(flights)
    assert await flights.join("key", work) == 2


async def test_one_that_has_just_ended_is_not_for_those_who_come_before_it_is_off_the_board() -> None:
    flights, later = Flights[int](), Work()
    joined: list[asyncio.Future[int]] = []

    async def work(flight: Flight[int]) -> int:
        asyncio.get_running_loop().call_soon(lambda: joined.append(flights.join("key", later)))
        return 7

    assert await flights.join("key", work) == 7
    later.gate.set()
    assert await joined[0] == 1
    assert await gone(flights)


async def test_F_19_keys_fly_separately() -> None:
    flights, slow, quick = Flights[int](), Work(), Work()
    quick.gate.set()
    waiting = asyncio.ensure_future(flights.join("slow", slow))
    await turns(2)
    assert await flights.join("quick", quick) == 1
    assert [flight.task.done() for flight in flights.under_way("slow")] == [False]
    assert flights.under_way("unknown") == []
    slow.gate.set()
    assert await waiting == 1


async def test_F_03_F_57_each_waiter_gets_an_error_of_its_own_with_the_same_cause() -> None:
    flights, work = Flights[int](), Work()
    work.error = TokenUnavailable("not now", retry_after=5.0)
    work.error.__cause__ = cause = OSError("unreachable")
    waiters = [asyncio.ensure_future(flights.join("key", work)) for _ in range(50)]
    await turns(2)
    work.gate.set()
    errors = await asyncio.gather(*waiters, return_exceptions=True)
    assert work.started == 1
    assert len({id(error) for error in errors}) == 50
    for error in errors:
        assert isinstance(error, TokenUnavailable)
        assert (str(error), error.retry_after, error.__cause__) == ("not now", 5.0, cause)
    assert len({len(traceback.extract_tb(error.__traceback__)) for error in errors if isinstance(error, Exception)}) == 1


async def test_errors_of_others_are_copied_where_they_can_be() -> None:
    class Awkward(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("awkward")

    class Changing(Exception):
        def __reduce__(self) -> tuple[type[Exception], tuple[str]]:
            return ValueError, ("another class",)

    for error, copied in ((KeyError("x"), True), (Awkward(1, 2), False), (Changing(), False)):
        flights, work = Flights[int](), Work()
        work.error = error
        work.gate.set()
        with pytest.raises(type(error)) as caught:
            await flights.join("key", work)
        assert (caught.value is not error) == copied


async def test_F_06_a_cancelled_waiter_leaves_the_others_alone() -> None:
    flights, work = Flights[int](), Work()
    waiters = [asyncio.ensure_future(flights.join("key", work)) for _ in range(20)]
    await turns(2)
    for waiter in waiters[:5]:
        waiter.cancel()
    await turns(2)
    work.gate.set()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True] * 5 + [False] * 15


async def test_F_07_the_work_goes_on_when_its_first_waiter_is_cancelled() -> None:
    flights, work = Flights[int](), Work()
    leader = asyncio.ensure_future(flights.join("key", work))
    await turns(1)
    follower = asyncio.ensure_future(flights.join("key", work))
    await turns(1)
    leader.cancel()
    work.gate.set()
    assert await follower == 1
    assert leader.cancelled()


async def test_F_09_the_work_goes_on_when_all_are_gone_and_the_garbage_is_collected() -> None:
    flights, work = Flights[int](), Work()
    waiters = [asyncio.ensure_future(flights.join("key", work)) for _ in range(3)]
    await turns(2)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    for _ in range(20):
        gc.collect()
        await turns(1)
    work.gate.set()
    assert await gone(flights)
    assert work.finished == 1


async def test_F_09_an_error_that_nobody_waits_for_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    flights, work = Flights[int](), Work()
    work.error = TokenUnavailable("not now")
    waiter = asyncio.ensure_future(flights.join("key", work))
    await turns(2)
    waiter.cancel()
    work.gate.set()
    assert await gone(flights)
    del waiter
    gc.collect()
    assert caplog.records == []


async def test_a_login_stops_with_its_last_waiter_and_not_before() -> None:
    flights, work = Flights[int](), Work()
    waiters = [asyncio.ensure_future(flights.join("key", work, cancel_when_unwanted=True)) for _ in range(2)]
    await turns(2)
    [flight] = flights.under_way()
    waiters[0].cancel()
    await turns(3)
    assert not flight.task.done()
    waiters[1].cancel()
    await turns(3)
    assert flight.task.cancelled()
    assert await gone(flights)


async def test_who_comes_just_after_the_last_waiter_left_starts_a_login_of_his_own() -> None:
    async def try_twice() -> int:
        try:
            return await flights.join("key", work, cancel_when_unwanted=True)
        except asyncio.CancelledError:
            return await flights.join("key", work, cancel_when_unwanted=True)

    flights, work = Flights[int](), Work()
    waiter = asyncio.create_task(try_twice())
    await turns(2)
    waiter.cancel()
    await turns(2)
    work.gate.set()
    assert await waiter == 2
    assert await gone(flights)


async def test_a_cancelled_flight_tells_those_who_wait_for_it() -> None:
    flights, work = Flights[int](), Work()
    waiter = asyncio.ensure_future(flights.join("key", work))
    await turns(2)
    flights.under_way("key")[0].task.cancel()
    with pytest.raises(TokenUnavailable, match="cancelled"):
        await waiter


async def test_a_flight_that_landed_early_serves_at_once_while_its_work_goes_on() -> None:
    async def work(flight: Flight[int]) -> int:
        flight.land(1)
        flight.land(2)
        await gate.wait()
        return 3

    gate = asyncio.Event()
    flights = Flights[int]()
    assert await flights.join("key", work) == 1
    assert await flights.join("key", work) == 1
    gate.set()
    assert await gone(flights)


async def test_a_flight_that_landed_early_is_not_cancelled_by_a_waiter_that_leaves() -> None:
    async def work(flight: Flight[int]) -> int:
        await turns(1)
        waiter.cancel()
        flight.land(1)
        await turns(3)
        finished.append(True)
        return 1

    finished: list[bool] = []
    flights = Flights[int]()
    waiter = asyncio.ensure_future(flights.join("key", work, cancel_when_unwanted=True))
    await asyncio.wait([waiter])
    await turns(5)
    assert finished == [True]


async def test_F_20_the_work_runs_in_an_empty_context() -> None:
    user = contextvars.ContextVar[str]("user")

    async def work(flight: Flight[str]) -> str:
        return user.get("nobody")

    user.set("alice")
    assert await Flights[str]().join("key", work) == "nobody"
    assert user.get() == "alice"


def test_F_15_one_object_serves_loops_in_turn_and_none_of_them_is_kept() -> None:
    flights = Flights[int]()

    async def once() -> int:
        work = Work()
        work.gate.set()
        return await flights.join("key", work)

    assert [asyncio.run(once()) for _ in range(3)] == [1, 1, 1]
    gc.collect()
    assert len(flights._by_loop) == 0


def test_F_15_a_loop_that_was_closed_with_a_flight_under_way_is_not_kept() -> None:
    flights = Flights[int]()

    async def start() -> None:
        waiter = asyncio.ensure_future(flights.join("key", Work()))
        await turns(2)
        waiter.cancel()
        await turns(2)

    async def other() -> int:
        work = Work()
        work.gate.set()
        return await flights.join("key", work)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(start())
    [flight] = flights._by_loop[loop].values()
    flight.task._log_destroy_pending = False  # type: ignore[attr-defined]
    del flight
    loop.close()
    del loop
    assert asyncio.run(other()) == 1
    gc.collect()
    assert len(flights._by_loop) == 0


# To outlast a cancellation.


async def outlasting(future: asyncio.Future[int], grace: float) -> tuple[int, int]:
    result = await outlast(future, grace)
    task = asyncio.current_task()
    assert task is not None
    return result, task.cancelling()


async def test_F_10_outlast_waits_although_it_is_cancelled_and_the_task_counts_as_not_cancelled() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(outlasting(future, 60.0))
    await turns(1)
    for _ in range(3):
        task.cancel()
        await turns(2)
    assert not task.done()
    future.set_result(7)
    assert await task == (7, 0)


async def test_F_10_outlast_gives_up_after_the_grace() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(outlast(future, 0.0))
    await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()
    assert task.cancelled()


async def test_F_10_outlast_gives_up_after_a_grace_that_has_to_pass_first() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(outlast(future, 0.01))
    await turns(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert future.cancelled()


async def test_outlast_that_gives_up_leaves_the_cancellation_counted() -> None:
    async def give_up() -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            await outlast(future, 0.0)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()
        return -1

    task = asyncio.create_task(give_up())
    await turns(1)
    task.cancel()
    assert await task == 1, "a TaskGroup or a timeout around it would take the cancellation for its own"


async def test_outlast_passes_on_what_the_future_yields() -> None:
    loop = asyncio.get_running_loop()
    for error in (LoginRequired("x"), asyncio.CancelledError()):
        future: asyncio.Future[int] = loop.create_future()
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)
        with pytest.raises(type(error)):
            await outlast(future, 5.0)


async def test_outlast_needs_no_task() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    future.set_result(7)
    results: list[object] = []

    def step() -> None:
        try:
            outlast(future, 5.0).send(None)
        except StopIteration as stop:
            results.append(stop.value)

    loop.call_soon(step)
    await turns(2)
    assert results == [7]


# To finish.


class Writing:
    """A write that is cancelled as often as it is told to, and may hang."""

    def __init__(self, hangs: int = 0) -> None:
        self.begun = 0
        self.hangs = hangs
        self.written = 0

    async def __call__(self) -> str:
        self.begun += 1
        if self.begun <= self.hangs:
            await asyncio.Event().wait()
        await turns(2)
        self.written += 1
        return "written"


async def end_of_the_loop(task: asyncio.Task[str]) -> None:
    for one in asyncio.all_tasks() - {asyncio.current_task()}:
        one.cancel()
    await asyncio.wait([task])


async def test_F_10_finish_begins_anew_where_everything_was_cancelled() -> None:
    writing = Writing(hangs=1)
    task = asyncio.create_task(finish(writing, 5.0))
    await turns(2)
    await end_of_the_loop(task)
    assert task.result() == "written"
    assert (writing.begun, writing.written) == (2, 1)


async def test_F_10_finish_waits_where_only_its_task_was_cancelled() -> None:
    writing = Writing()
    task = asyncio.create_task(finish(writing, 5.0))
    await turns(1)
    task.cancel()
    assert await task == "written"
    assert writing.begun == 1


@pytest.mark.parametrize("hangs", [1, 2])
async def test_F_10_a_write_that_hangs_does_not_hold_up_the_end_of_the_loop_for_longer_than_the_grace(hangs: int) -> None:
    writing = Writing(hangs)
    task = asyncio.create_task(finish(writing, 0.01))
    await turns(2)
    if hangs == 1:
        task.cancel()
        await asyncio.wait([task])
    else:
        await end_of_the_loop(task)
    assert task.cancelled()
    assert (writing.begun, writing.written) == (hangs, 0)
    await turns(2)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_finish_passes_on_what_the_work_raises() -> None:
    async def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish(broken, 5.0)
