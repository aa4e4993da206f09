"""The refresh state machine alone: each row of its two tables, a store that fails at each call, and who writes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from aiohttp_oauth_middleware import (
    AuthorizationCode,
    ClientCredentials,
    ConfigurationError,
    DiscoveryError,
    ErrorResponse,
    Event,
    ExtensionGrant,
    Grant,
    InvalidClient,
    InvalidGrant,
    LoginRequired,
    OAuthError,
    Record,
    RefreshInDoubt,
    RefreshToken,
    StoreCorrupted,
    StoreError,
    StoreLockTimeout,
    Token,
    TokenResponseError,
    TokenUnavailable,
)
from aiohttp_oauth_middleware.sources import refresh
from aiohttp_oauth_middleware.sources.events import Events
from aiohttp_oauth_middleware.sources.refresh import COOLDOWN_CAP, Renewal
from aiohttp_oauth_middleware.sources.state import Pending, State
from aiohttp_oauth_middleware.stores.memory import MemoryStore
from aiohttp_oauth_middleware.stores.store import Lock
from tests.clock import VirtualClock
from tests.strict_server import FaultyStore, turns

KEY = "the store's key"
OLD = Token("old", refresh_token="r1")
NEW = Token("new", refresh_token="r2")
NEWER = Token("newer", refresh_token="r3")
UNATTENDED = ClientCredentials()

Answer = Token | BaseException | Callable[[], Awaitable[Token]]


class Bench:
    """A Renewal and all that it is given."""

    def __init__(self, *answers: Answer, grant: Grant | None = None, store: MemoryStore | None = None) -> None:
        self.clock = VirtualClock()
        self.store = store if store is not None else MemoryStore()
        self.grant = grant
        self.answers = list(answers)
        self.sent: list[str] = []
        self.records_when_sent: list[State] = []
        self.seen_events: list[Event] = []
        self.published: list[Token] = []
        self.chances: list[tuple[float, float]] = []
        self.budget = 30.0
        self.refusals_before_latch = 1
        self.shutdown_grace = 5.0
        self.unwritten: tuple[Token, int] | None = None
        self.discovered: str | None = None
        self.renewal: Renewal

    async def obtain(self, grant: Grant | None, previous: Token | None) -> Token:
        self.sent.append(previous.refresh_token or "" if previous is not None else f"grant {grant.grant_type}" if grant else "")
        self.records_when_sent.append(self.state())
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Token) else await answer()

    async def endpoint(self) -> str | None:
        return self.discovered

    def chance(self, low: float, high: float) -> float:
        self.chances.append((low, high))
        return high

    async def run(
        self,
        seen: Token | None = None,
        *,
        fresh: Callable[[Token], bool] = lambda token: True,
        usable: Callable[[Token], bool] = lambda token: True,
        tries: int = 3,
        anew: bool = False,
        heed_cooldown: bool = True,
    ) -> Token:
        self.renewal = Renewal(
            key=KEY,
            label="alice",
            owner="owner",
            store=self.store,
            obtain=self.obtain,
            clock=self.clock,
            grant=self.grant,
            events=Events(self.seen_events.append),
            budget=self.budget,
            lock_wait=1.0,
            shutdown_grace=self.shutdown_grace,
            refusals_before_latch=self.refusals_before_latch,
            publish=self.published.append,
            endpoint=self.endpoint,
            unwritten=self.unwritten,
            chance=self.chance,
        )
        return await self.renewal.run(seen, fresh=fresh, usable=usable, tries=tries, anew=anew, heed_cooldown=heed_cooldown)

    def put(self, state: State) -> None:
        self.store._records[KEY] = Record(self.version() + 1, "alice", state.to_body())

    def version(self) -> int:
        record = self.store._records.get(KEY)
        return record.version if record is not None else 0

    def state(self) -> State:
        record = self.store._records.get(KEY)
        return State.from_body(record.body).replace(sign_in=None) if record is not None else State()

    def events(self) -> list[str]:
        return [event.name for event in self.seen_events]


def unavailable(retry_after: float | None = None, *, sent: bool = False) -> TokenUnavailable:
    return TokenUnavailable("passing", retry_after=retry_after, maybe_spent=sent)


def invalid_grant() -> InvalidGrant:
    return InvalidGrant("no", error="invalid_grant", status=400)


# The table of what is in the store.


async def test_no_record_and_no_grant_is_a_login_without_a_request() -> None:
    bench = Bench()
    with pytest.raises(LoginRequired):
        await bench.run()
    assert bench.sent == []
    assert bench.version() == 0


async def test_no_record_and_an_unattended_grant_earns_one_and_writes_once() -> None:
    bench = Bench(NEW, grant=UNATTENDED)
    assert await bench.run() == NEW
    assert bench.sent == ["grant client_credentials"]
    assert bench.records_when_sent == [State()], "no intent where nothing that is sent is single-use"
    assert bench.state() == State(owner="owner", token=NEW)
    assert bench.store._records[KEY].key_label == "alice"


async def test_a_newer_stored_token_is_adopted_without_a_request() -> None:
    bench = Bench()
    bench.put(State(token=NEWER))
    assert await bench.run(OLD) == NEWER
    assert bench.sent == []
    assert bench.events() == ["refresh_adopted"]


async def test_a_stored_token_that_equals_the_seen_one_is_renewed_though_it_looks_fresh() -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD))
    assert await bench.run(OLD) == NEW
    assert bench.sent == ["r1"]


async def test_a_newer_stored_token_that_is_not_fresh_is_renewed_from_its_own_refresh_token() -> None:
    bench = Bench(NEW)
    bench.put(State(token=NEWER))
    assert await bench.run(OLD, fresh=lambda token: False) == NEW
    assert bench.sent == ["r3"]


async def test_F_04_a_stored_cool_down_fails_at_once_without_a_request() -> None:
    bench = Bench()
    bench.put(State(token=OLD, cooldown_until=bench.clock.time() + 7.0, failures=1))
    with pytest.raises(TokenUnavailable) as caught:
        await bench.run(OLD)
    assert caught.value.retry_after == pytest.approx(7.0)
    assert bench.renewal.cooldown == pytest.approx(7.0)
    assert bench.sent == []


async def test_F_04_a_cool_down_that_is_over_or_impossibly_far_away_or_not_heeded_is_ignored() -> None:
    for seconds, heed in ((0.0, True), (-1.0, True), (COOLDOWN_CAP + 1, True), (1e9, True), (7.0, False)):
        bench = Bench(NEW)
        bench.put(State(token=OLD, cooldown_until=bench.clock.time() + seconds))
        assert await bench.run(OLD, heed_cooldown=heed) == NEW


async def test_S_10_the_intent_is_in_the_store_before_the_refresh_token_leaves() -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD))
    await bench.run(OLD)
    when_sent = bench.records_when_sent[0]
    assert when_sent.pending is not None
    assert when_sent.pending.since == bench.clock.time()
    assert when_sent.pending.process
    assert when_sent.token == OLD
    assert bench.version() == 3
    assert bench.state() == State(owner="owner", token=NEW)


async def test_F_26_an_old_intent_is_kept_and_the_refresh_token_sent_again() -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD, pending=Pending(5.0, "elsewhere:1")))
    assert await bench.run(OLD) == NEW
    assert bench.records_when_sent[0].pending == Pending(5.0, "elsewhere:1")
    assert bench.state().pending is None


async def test_F_26_a_refusal_after_an_old_intent_is_RefreshInDoubt_with_its_time_and_process() -> None:
    bench = Bench(invalid_grant())
    bench.put(State(token=OLD, pending=Pending(5.0, "elsewhere:1")))
    with pytest.raises(RefreshInDoubt) as caught:
        await bench.run(OLD)
    assert (caught.value.since, caught.value.process) == (5.0, "elsewhere:1")
    assert isinstance(caught.value.__cause__, InvalidGrant)
    assert bench.state().kind == "dead"
    assert bench.state().pending is None


@pytest.mark.parametrize("kind", ["ok", "dead"])
async def test_without_a_refresh_token_or_with_a_dead_one_the_unattended_grant_is_used(kind: str) -> None:
    bench = Bench(NEW, grant=UNATTENDED)
    seen = OLD if kind == "dead" else Token("old")
    bench.put(State("dead" if kind == "dead" else "ok", token=seen))
    assert await bench.run(seen) == NEW
    assert bench.sent == ["grant client_credentials"]


@pytest.mark.parametrize("grant", [None, AuthorizationCode("code")], ids=["none", "code"])
@pytest.mark.parametrize("kind", ["ok", "dead"])
async def test_F_21_without_them_it_is_a_login_and_no_request(grant: Grant | None, kind: str) -> None:
    bench = Bench(grant=grant)
    seen = OLD if kind == "dead" else Token("old")
    bench.put(State("dead" if kind == "dead" else "ok", token=seen))
    with pytest.raises(LoginRequired):
        await bench.run(seen)
    assert bench.sent == []


async def test_S_27_signed_out_is_a_login_even_for_an_unattended_grant_but_not_for_a_new_login() -> None:
    bench = Bench(NEW, grant=UNATTENDED)
    bench.put(State("signed_out"))
    with pytest.raises(LoginRequired, match="signed out"):
        await bench.run()
    assert bench.sent == []
    assert await bench.run(anew=True) == NEW


async def test_anew_uses_the_grant_whatever_is_stored() -> None:
    bench = Bench(NEW, grant=UNATTENDED)
    bench.put(State(token=OLD, cooldown_until=bench.clock.time() + 7.0))
    assert await bench.run(anew=True) == NEW
    assert bench.sent == ["grant client_credentials"]


async def test_a_record_that_cannot_be_read_is_an_error_and_never_no_token() -> None:
    bench = Bench(NEW, grant=UNATTENDED)
    bench.store._records[KEY] = Record(1, "alice", b"{}")
    with pytest.raises(StoreCorrupted):
        await bench.run()
    assert bench.sent == []


# A lease only guesses whether who held it before is dead.


class LeaseStore(MemoryStore):
    """A store whose lock is a lease, and which notes what was written under it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[bool, State]] = []

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        async with super().lock(key, wait=wait):
            yield Lease()

    async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
        saved = await super().save(key, record, expected=expected, lock=lock)
        if saved:
            self.written.append((lock is not None, State.from_body(record.body)))
        return saved


class Lease:
    predecessor_is_dead = False


async def test_P3_F_48_an_intent_under_way_is_left_to_who_wrote_it_while_the_access_token_serves() -> None:
    bench = Bench(store=LeaseStore())
    bench.put(State(token=OLD, pending=Pending(5.0, "elsewhere:1")))
    with pytest.raises(TokenUnavailable, match="serves on") as caught:
        await bench.run(OLD)
    assert bench.sent == []
    assert bench.version() == 1
    assert caught.value.retry_after == bench.renewal.cooldown == 5.0
    bench.put(State(token=NEWER))
    assert await bench.run(OLD) == NEWER, "the result of the other"


async def test_P3_F_48_when_it_serves_no_more_the_refresh_token_is_sent_once_and_a_refusal_is_RefreshInDoubt() -> None:
    bench = Bench(invalid_grant(), store=LeaseStore())
    bench.put(State(token=OLD, pending=Pending(5.0, "elsewhere:1")))
    with pytest.raises(RefreshInDoubt) as caught:
        await bench.run(OLD, usable=lambda token: False)
    assert caught.value.process == "elsewhere:1"
    assert bench.sent == ["r1"]


async def test_P3_the_next_look_at_another_s_result_comes_when_the_access_token_expires_at_the_latest() -> None:
    bench = Bench(store=LeaseStore())
    for left, wait in ((3.0, 3.0), (0.5, 0.5), (-1.0, 0.0), (60.0, 5.0)):
        token = OLD.replace(expires_at=bench.clock.time() + left)
        bench.put(State(token=token, pending=Pending(5.0, "elsewhere:1")))
        with pytest.raises(TokenUnavailable):
            await bench.run(token)
        assert bench.renewal.cooldown == pytest.approx(wait)


async def test_P3_an_intent_whose_owner_noted_that_its_answer_is_lost_is_not_under_way() -> None:
    bench = Bench(unavailable(sent=True), NEW, store=LeaseStore())
    bench.put(State(token=OLD))
    with pytest.raises(TokenUnavailable):
        await bench.run(OLD)
    bench.clock.advance(61.0)
    assert await bench.run(OLD) == NEW
    assert [state.under_way for state in bench.records_when_sent] == [True, True]


async def test_P3_an_intent_is_written_under_the_lock_and_its_outcome_by_its_version_alone() -> None:
    for answer, outcome in ((NEW, "ok"), (invalid_grant(), "dead"), (unavailable(sent=True), "ok")):
        store = LeaseStore()
        bench = Bench(answer, store=store)
        bench.put(State(token=OLD))
        with contextlib.suppress(LoginRequired, TokenUnavailable):
            await bench.run(OLD)
        assert [(locked, state.kind, state.under_way) for locked, state in store.written] == [
            (True, "ok", True),
            (False, outcome, False),
        ]


async def test_P3_a_result_is_not_lost_where_the_store_went_back_to_the_record_before_the_intent() -> None:
    async def fail_over() -> Token:
        bench.store._records[KEY] = before
        return NEW

    bench = Bench(fail_over)
    bench.put(State(token=NEWER))
    bench.put(State(token=OLD))
    before = bench.store._records[KEY]
    assert await bench.run(OLD) == NEW
    assert bench.state() == State(owner="owner", token=NEW)
    assert bench.version() == 3
    assert "stale_write_refused" not in bench.events()


async def test_P3_a_record_that_is_older_and_of_another_token_is_no_such_store() -> None:
    async def forget_and_sign_in() -> Token:
        bench.store._records[KEY] = Record(1, "alice", State(token=NEWER).to_body())
        return NEW

    bench = Bench(forget_and_sign_in)
    bench.put(State(token=NEWER))
    bench.put(State(token=OLD))
    assert await bench.run(OLD) == NEWER
    assert bench.state() == State(token=NEWER)


async def test_P3_a_store_that_goes_on_changing_after_it_went_back_is_tried_again() -> None:
    class Restless(MemoryStore):
        refusals = 0

        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            if expected == 2 and self.refusals < 1 and State.from_body(record.body).token == NEW:
                self.refusals += 1
                return False
            return await super().save(key, record, expected=expected, lock=lock)

    async def fail_over() -> Token:
        bench.store._records[KEY] = before
        return NEW

    bench = Bench(fail_over, store=Restless())
    bench.put(State(token=NEWER))
    bench.put(State(token=OLD))
    before = bench.store._records[KEY]
    assert await bench.run(OLD) == NEW
    assert bench.state().token == NEW
    assert "store_write_retried" in bench.events()


# The table of what comes back.


async def test_F_21_invalid_grant_is_dead_in_the_store_and_a_login() -> None:
    bench = Bench(invalid_grant())
    bench.put(State(token=OLD, failures=3))
    with pytest.raises(LoginRequired) as caught:
        await bench.run(OLD)
    assert not isinstance(caught.value, RefreshInDoubt)
    assert isinstance(caught.value.__cause__, InvalidGrant)
    state = bench.state()
    assert (state.kind, state.token, state.pending, state.failures, state.cooldown_until) == ("dead", OLD, None, 0, 0.0)
    assert bench.renewal.cooldown == 0.0


async def test_F_21_a_dead_refresh_token_of_an_unattended_grant_falls_back_to_the_grant() -> None:
    bench = Bench(invalid_grant(), NEW, grant=UNATTENDED)
    bench.put(State(token=OLD))
    assert await bench.run(OLD) == NEW
    assert bench.sent == ["r1", "grant client_credentials"]
    assert bench.state() == State(owner="owner", token=NEW)


async def test_F_21_where_that_fallback_fails_the_refused_refresh_token_is_gone_all_the_same() -> None:
    bench = Bench(invalid_grant(), unavailable(9.0), grant=UNATTENDED)
    bench.put(State(token=OLD))
    with pytest.raises(TokenUnavailable):
        await bench.run(OLD, tries=1)
    state = bench.state()
    assert state.token == OLD.replace(refresh_token=None)
    assert state.pending is None
    assert state.cooldown_until == pytest.approx(bench.clock.time() + 9.0)


async def test_P0_the_refused_refresh_token_is_gone_from_the_store_before_the_fallback_is_sent() -> None:
    bench = Bench(invalid_grant(), NEW, grant=UNATTENDED)
    bench.put(State(token=OLD))
    await bench.run(OLD)
    stored = bench.records_when_sent[1].token
    assert stored is not None
    assert stored.refresh_token is None, "a process that dies now would send it again after it was refused"


async def test_invalid_grant_for_an_unattended_grant_is_no_login_but_a_cool_down() -> None:
    bench = Bench(invalid_grant(), grant=UNATTENDED)
    with pytest.raises(InvalidGrant):
        await bench.run()
    assert bench.state().kind == "ok"
    assert bench.renewal.cooldown == 2.0


async def test_invalid_grant_for_a_code_is_dead() -> None:
    bench = Bench(invalid_grant(), grant=AuthorizationCode("code"))
    with pytest.raises(LoginRequired):
        await bench.run()
    assert bench.state().kind == "dead"
    with pytest.raises(LoginRequired):
        await bench.run()
    assert bench.sent == ["grant authorization_code"]


@pytest.mark.parametrize(
    "error",
    [
        InvalidClient("no", error="invalid_client", status=401),
        ErrorResponse("no", error="invalid_scope", status=400),
        ErrorResponse("no", error="unauthorized_client", status=400),
        ConfigurationError("no token_endpoint"),
    ],
    ids=lambda error: str(getattr(error, "error", "configuration")),
)
async def test_F_22_another_definite_error_keeps_the_refresh_token_and_cools_down(error: OAuthError) -> None:
    bench = Bench(error)
    bench.put(State(token=OLD))
    with pytest.raises(type(error)):
        await bench.run(OLD)
    state = bench.state()
    assert (state.kind, state.token, state.pending, state.failures) == ("ok", OLD, None, 1)
    assert state.cooldown_until == bench.clock.time() + 2.0
    assert error.retry_after is None
    assert bench.events() == ["refresh_started", "refresh_failed", "cooldown_entered"]


async def test_F_25_what_never_left_this_machine_leaves_no_doubt() -> None:
    bench = Bench(unavailable())
    bench.put(State(token=OLD))
    with pytest.raises(TokenUnavailable) as caught:
        await bench.run(OLD)
    assert bench.state().pending is None
    assert caught.value.retry_after == 2.0
    assert "in_doubt" not in bench.events()


@pytest.mark.parametrize("error", [unavailable(sent=True), TokenResponseError("nonsense")], ids=["lost", "nonsense"])
async def test_F_23_F_26_a_lost_answer_or_nonsense_leaves_the_intent(error: OAuthError) -> None:
    bench = Bench(error, NEW)
    bench.put(State(token=OLD))
    with pytest.raises(type(error)):
        await bench.run(OLD)
    pending = bench.state().pending
    assert pending is not None
    assert "in_doubt" in bench.events()
    bench.clock.advance(61.0)
    assert await bench.run(OLD) == NEW
    assert bench.sent == ["r1", "r1"]
    assert bench.records_when_sent[1].pending == pending, "the doubt is as old as the first lost answer"


async def test_F_26_a_doubt_outlives_a_request_that_never_left_and_a_definite_error_of_another_kind() -> None:
    bench = Bench(unavailable(), InvalidClient("no", error="invalid_client"), invalid_grant())
    bench.put(State(token=OLD, pending=Pending(5.0, "elsewhere:1")))
    for kind in (TokenUnavailable, InvalidClient, RefreshInDoubt):
        with pytest.raises(kind):
            await bench.run(OLD, heed_cooldown=False)


async def test_a_lost_answer_to_an_unattended_grant_leaves_nothing_in_doubt() -> None:
    bench = Bench(unavailable(sent=True), grant=UNATTENDED)
    with pytest.raises(TokenUnavailable):
        await bench.run(tries=1)
    assert bench.state().pending is None
    assert "in_doubt" not in bench.events()


async def test_S_30_a_code_is_sent_once_even_where_its_answer_is_lost() -> None:
    bench = Bench(unavailable(sent=True), grant=AuthorizationCode("code"))
    with pytest.raises(TokenUnavailable):
        await bench.run()
    bench.clock.advance(1000.0)
    with pytest.raises(LoginRequired):
        await bench.run()
    assert bench.sent == ["grant authorization_code"]


async def test_S_30_a_code_that_never_left_may_be_sent_again() -> None:
    bench = Bench(unavailable(), NEW, grant=AuthorizationCode("code"))
    with pytest.raises(TokenUnavailable):
        await bench.run()
    assert await bench.run(heed_cooldown=False) == NEW


async def test_a_configured_refresh_token_is_sent_again_while_it_is_in_doubt_and_never_after_it_was_replaced() -> None:
    bench = Bench(unavailable(sent=True), Token("new"), grant=RefreshToken("r0"))
    with pytest.raises(TokenUnavailable):
        await bench.run()
    assert await bench.run(heed_cooldown=False) == Token("new")
    with pytest.raises(LoginRequired):
        await bench.run(Token("new"))
    assert bench.sent == ["grant refresh_token", "grant refresh_token"]


async def test_F_03_each_failure_lengthens_the_backoff_up_to_a_minute_with_full_jitter() -> None:
    bench = Bench(*(unavailable() for _ in range(9)))
    bench.put(State(token=OLD))
    for _ in range(9):
        with pytest.raises(TokenUnavailable):
            await bench.run(OLD, heed_cooldown=False)
    assert bench.chances == [(0.0, ceiling) for ceiling in (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0)]


async def test_F_04_Retry_After_wins_over_the_backoff_and_is_capped() -> None:
    for stated, kept in ((5.0, 5.0), (4000.0, COOLDOWN_CAP)):
        bench = Bench(unavailable(stated))
        bench.put(State(token=OLD))
        with pytest.raises(TokenUnavailable) as caught:
            await bench.run(OLD)
        assert caught.value.retry_after == stated
        assert bench.renewal.cooldown == kept
        assert bench.chances == []
        cooled = [event for event in bench.seen_events if event.name == "cooldown_entered"]
        assert [(event.retry_after, event.cause, event.key_id) for event in cooled] == [(kept, "TokenUnavailable", "2bd806c9")]


async def test_refusals_before_latch_takes_so_many_refusals_for_passing() -> None:
    bench = Bench(invalid_grant(), invalid_grant(), invalid_grant())
    bench.refusals_before_latch = 3
    bench.put(State(token=OLD))
    for _ in range(2):
        with pytest.raises(TokenUnavailable, match="refusals_before_latch"):
            await bench.run(OLD, heed_cooldown=False)
        assert bench.state().kind == "ok"
        assert bench.state().pending is None
    with pytest.raises(LoginRequired):
        await bench.run(OLD, heed_cooldown=False)
    assert bench.state().kind == "dead"


async def test_refusals_before_latch_counts_refusals_in_a_row_only() -> None:
    bench = Bench(invalid_grant(), unavailable(), invalid_grant(), grant=UNATTENDED)
    bench.refusals_before_latch = 2
    bench.put(State(token=OLD))
    for _ in range(3):
        with pytest.raises(TokenUnavailable):
            await bench.run(OLD, heed_cooldown=False)
    assert bench.sent == ["r1", "r1", "r1"]


async def test_an_error_that_is_none_of_ours_passes_and_leaves_the_intent() -> None:
    bench = Bench(ZeroDivisionError())
    bench.put(State(token=OLD))
    with pytest.raises(ZeroDivisionError):
        await bench.run(OLD)
    assert bench.state().pending is not None


# Tries of an unattended grant.


async def test_an_unattended_grant_is_tried_at_most_three_times_with_full_jitter() -> None:
    bench = Bench(*(unavailable() for _ in range(3)), grant=UNATTENDED)
    with pytest.raises(TokenUnavailable):
        await bench.run()
    assert len(bench.sent) == 3
    assert bench.clock.slept == [1.0, 2.0]
    assert bench.chances[:2] == [(0.0, 1.0), (0.0, 2.0)]


async def test_no_try_before_Retry_After_and_none_beyond_the_budget() -> None:
    bench = Bench(unavailable(4.0), NEW, grant=UNATTENDED)
    assert await bench.run() == NEW
    assert bench.clock.slept == [4.0]
    bench = Bench(unavailable(30.0), grant=UNATTENDED)
    with pytest.raises(TokenUnavailable):
        await bench.run()
    assert bench.clock.slept == []
    assert bench.renewal.cooldown == 30.0


@pytest.mark.parametrize(
    "error",
    [InvalidClient("no"), ErrorResponse("no", error="invalid_scope"), TokenResponseError("nonsense")],
    ids=lambda error: type(error).__name__,
)
async def test_only_a_passing_failure_is_tried_again(error: OAuthError) -> None:
    bench = Bench(error, grant=UNATTENDED)
    with pytest.raises(type(error)):
        await bench.run()
    assert len(bench.sent) == 1


async def test_with_a_usable_token_in_hand_there_is_one_try() -> None:
    bench = Bench(unavailable(), grant=UNATTENDED)
    with pytest.raises(TokenUnavailable):
        await bench.run(Token("old"), tries=1)
    assert len(bench.sent) == 1


@pytest.mark.parametrize(
    "grant", [RefreshToken("r0"), ExtensionGrant("urn:x", unattended=False)], ids=["refresh token", "attended"]
)
async def test_what_is_not_unattended_has_one_try(grant: Grant) -> None:
    bench = Bench(unavailable(), grant=grant)
    with pytest.raises(TokenUnavailable):
        await bench.run()
    assert len(bench.sent) == 1


# The store fails.


def failing(*numbers: int) -> Callable[[int], bool]:
    return lambda number: number in numbers


def faulty(bench: Bench, which: Callable[[int], bool]) -> FaultyStore:
    store = FaultyStore(which)
    store._records = bench.store._records
    bench.store = store
    return store


@pytest.mark.parametrize("number", [0, 1, 2], ids=["lock", "load", "intent"])
async def test_F_50_where_a_call_before_the_sending_fails_the_refresh_token_is_not_spent(number: int) -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD))
    faulty(bench, failing(number))
    with pytest.raises(OSError, match="No space left"):
        await bench.run(OLD)
    assert bench.sent == []


async def test_F_50_the_first_failure_of_the_result_is_followed_by_a_try_at_once() -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD))
    faulty(bench, failing(3))
    assert await bench.run(OLD) == NEW
    assert bench.published == []
    assert bench.clock.slept == []
    assert bench.state().token == NEW


async def test_F_50_after_the_second_the_waiters_get_it_and_the_write_goes_on() -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD))
    faulty(bench, failing(3, 4, 5))
    assert await bench.run(OLD) == NEW
    assert bench.published == [NEW, NEW]
    assert bench.clock.slept == [0.2, 0.4]
    assert bench.events().count("store_write_retried") == 3
    assert bench.state().token == NEW


async def test_F_50_a_store_that_stays_broken_costs_the_record_but_not_the_token() -> None:
    bench = Bench(NEW)
    bench.put(State(token=OLD))
    store = faulty(bench, lambda number: number >= 3)
    assert await bench.run(OLD) == NEW
    assert store.calls.count("save") == 1 + 12
    assert max(bench.clock.slept) == 5.0
    assert bench.events()[-1] == "store_write_failed"
    assert bench.state().pending is not None


async def test_F_50_P0_what_the_store_would_not_take_is_what_is_renewed_next_and_not_what_it_replaced() -> None:
    bench = Bench(NEW, NEWER)
    bench.put(State(token=OLD))
    store = faulty(bench, lambda number: number >= 3)
    assert await bench.run(OLD) == NEW
    unwritten = bench.renewal.unwritten
    assert unwritten == (NEW, 2)
    for mended in (lambda number: number == len(store.calls) - 1 and store.calls[-1] == "save", lambda number: False):
        store.failing = mended
        bench.unwritten = unwritten
        with contextlib.suppress(OSError):
            assert await bench.run(NEW) == NEWER
        unwritten = bench.renewal.unwritten
    assert bench.sent == ["r1", "r2"]
    assert bench.state() == State(owner="owner", token=NEWER)
    assert unwritten is None


async def test_F_50_what_the_store_would_not_take_does_not_count_where_somebody_wrote_meanwhile() -> None:
    bench = Bench(NEWER)
    bench.put(State(token=NEW))
    bench.unwritten = (OLD, 7)
    assert await bench.run(OLD, fresh=lambda token: False) == NEWER
    assert bench.sent == ["r2"]


async def test_F_50_where_a_failure_cannot_be_noted_the_caller_still_learns_the_cause() -> None:
    for answer, kind in ((invalid_grant(), LoginRequired), (unavailable(5.0), TokenUnavailable)):
        bench = Bench(answer)
        bench.put(State(token=OLD))
        faulty(bench, failing(3))
        with pytest.raises(kind):
            await bench.run(OLD)
        assert bench.events()[-1] == "store_write_failed"


@pytest.mark.parametrize("number", range(8))
async def test_F_50_whichever_call_fails_a_refresh_token_is_never_sent_without_an_intent(number: int) -> None:
    bench = Bench(NEW, NEWER)
    bench.put(State(token=OLD))
    faulty(bench, failing(number))
    for _ in range(2):
        try:
            token = await bench.run(OLD, fresh=lambda token: token != OLD)
        except OSError:
            continue
        assert token == NEW
    assert bench.sent == ["r1"]
    assert all(state.pending is not None for state in bench.records_when_sent)
    assert bench.state().token == NEW


async def test_F_50_a_fallback_whose_note_cannot_be_written_goes_on_all_the_same() -> None:
    bench = Bench(invalid_grant(), NEW, grant=UNATTENDED)
    bench.put(State(token=OLD))
    faulty(bench, failing(3))
    assert await bench.run(OLD) == NEW
    assert bench.state() == State(owner="owner", token=NEW)


# Somebody writes without the lock.


def writing(bench: Bench, state: State | None, token: Token) -> Callable[[], Awaitable[Token]]:
    """An exchange during which the record becomes *state*, or is deleted."""

    async def exchange() -> Token:
        if state is None:
            del bench.store._records[KEY]
        else:
            bench.put(state)
        return token

    return exchange


async def test_a_save_during_the_refresh_wins_and_ours_is_dropped() -> None:
    bench = Bench()
    bench.answers.append(writing(bench, State(token=NEWER), NEW))
    bench.put(State(token=OLD))
    assert await bench.run(OLD) == NEWER
    assert bench.state().token == NEWER
    assert bench.events()[-1] == "stale_write_refused"


@pytest.mark.parametrize("state", [State("signed_out"), State("dead", token=NEWER), State(), None], ids=str)
async def test_S_27_a_sign_out_during_the_refresh_is_not_undone(state: State | None) -> None:
    bench = Bench()
    bench.answers.append(writing(bench, state, NEW))
    bench.put(State(token=OLD))
    with pytest.raises(LoginRequired):
        await bench.run(OLD)
    assert bench.state() == (state or State())


async def test_F_21_an_old_failure_never_kills_a_newer_refresh_token() -> None:
    bench = Bench()

    async def refused_meanwhile() -> Token:
        bench.put(State(token=NEWER))
        raise invalid_grant()

    bench.answers.append(refused_meanwhile)
    bench.put(State(token=OLD))
    with pytest.raises(LoginRequired):
        await bench.run(OLD)
    assert bench.state() == State(token=NEWER)


async def test_our_own_write_whose_success_was_lost_is_recognised() -> None:
    class Forgetful(MemoryStore):
        failed = False

        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            done = await super().save(key, record, expected=expected, lock=lock)
            if State.from_body(record.body).token == NEW and not self.failed:
                self.failed = True
                raise OSError("the connection broke after the commit")
            return done

    bench = Bench(NEW, store=Forgetful())
    bench.put(State(token=OLD))
    assert await bench.run(OLD) == NEW
    assert "stale_write_refused" not in bench.events()
    assert bench.state().token == NEW


async def test_a_record_that_changes_before_the_intent_is_looked_at_again() -> None:
    class Busy(MemoryStore):
        intruders: Iterable[State] = iter([State(token=NEWER)])

        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            for state in self.intruders:
                self._records[key] = Record(expected + 1, "alice", state.to_body())
                break
            return await super().save(key, record, expected=expected, lock=lock)

    bench = Bench(store=Busy())
    bench.put(State(token=OLD))
    assert await bench.run(OLD) == NEWER
    assert bench.sent == []


async def test_a_record_that_changes_for_ever_is_a_StoreError_and_nothing_is_sent() -> None:
    class Refusing(MemoryStore):
        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            return False

    bench = Bench(store=Refusing())
    bench.put(State(token=OLD))
    with pytest.raises(StoreError, match="changed each time"):
        await bench.run(OLD)
    assert bench.sent == []


# Cancelled while it works, as every task is when a loop ends.


async def test_F_10_a_write_that_is_cancelled_with_everything_else_is_made_once_more() -> None:
    class Stopping(MemoryStore):
        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            if State.from_body(record.body).token == NEW and stop:
                stop.clear()
                for task in asyncio.all_tasks() - {this}:
                    task.cancel()
                await asyncio.sleep(0)
            return await super().save(key, record, expected=expected, lock=lock)

    stop = [True]
    this = asyncio.current_task()
    bench = Bench(NEW, store=Stopping())
    bench.put(State(token=OLD))
    assert await asyncio.create_task(bench.run(OLD)) == NEW
    assert bench.state().token == NEW


async def test_F_10_a_cancellation_between_the_tries_of_a_failing_write_makes_a_last_one() -> None:
    bench = Bench(NEW)
    bench.clock = VirtualClock(automatic=False)
    bench.put(State(token=OLD))
    faulty(bench, failing(3, 4))
    task = asyncio.create_task(bench.run(OLD))
    while not bench.clock.sleepers:
        await turns(1)
    task.cancel()
    await asyncio.wait([task])
    assert bench.state().token == NEW, "the store works again, and the token was lost"


async def test_F_50_a_write_that_is_cut_off_by_the_end_of_the_grace_may_have_been_in_vain() -> None:
    class Hanging(MemoryStore):
        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            if expected == 2:
                hangs.set()
                await asyncio.get_running_loop().create_future()
            return await super().save(key, record, expected=expected, lock=lock)

    hangs = asyncio.Event()
    bench = Bench(NEW, store=Hanging())
    bench.shutdown_grace = 0.0
    bench.put(State(token=OLD))
    task = asyncio.create_task(bench.run(OLD))
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.renewal.unwritten == (NEW, 2)


async def test_P0_a_refusal_is_noted_although_the_task_is_cancelled_while_it_is_written() -> None:
    class Stopping(MemoryStore):
        async def save(self, key: str, record: Record, *, expected: int, lock: Lock | None = None) -> bool:
            if State.from_body(record.body).kind == "dead" and stop:
                stop.clear()
                for task in asyncio.all_tasks() - {this}:
                    task.cancel()
                await asyncio.sleep(0)
            return await super().save(key, record, expected=expected, lock=lock)

    stop = [True]
    this = asyncio.current_task()
    bench = Bench(invalid_grant(), store=Stopping())
    bench.put(State(token=OLD))
    task = asyncio.create_task(bench.run(OLD))
    await asyncio.wait([task])
    assert bench.state().kind == "dead", "the refused refresh token would be sent again"


# While another has the lock.


class TakenStore(MemoryStore):
    """A store whose lock another has, for so many attempts."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.waits: list[float] = []

    @asynccontextmanager
    async def lock(self, key: str, *, wait: float) -> AsyncIterator[Lock]:
        self.waits.append(wait)
        if self.times:
            self.times -= 1
            raise StoreLockTimeout("taken")
        async with super().lock(key, wait=wait) as held:
            yield held


@pytest.mark.parametrize(("expires_in", "cooldown"), [(100.0, refresh.SERVING_WAIT), (0.5, 0.5), (None, refresh.SERVING_WAIT)])
async def test_F_05_a_token_that_serves_does_not_wait_long_for_a_sibling(expires_in: float | None, cooldown: float) -> None:
    store = TakenStore(1)
    bench = Bench(store=store)
    token = Token("a", refresh_token="r", expires_at=None if expires_in is None else bench.clock.time() + expires_in)
    with pytest.raises(StoreLockTimeout):
        await bench.run(token)
    assert store.waits == [min(refresh.SERVING_WAIT, 1.0)]
    assert bench.renewal.cooldown == cooldown
    assert bench.sent == []


async def test_F_05_one_that_expires_meanwhile_waits_on_for_the_lock() -> None:
    store = TakenStore(1)
    bench = Bench(Token("b", refresh_token="s"), store=store)
    token = Token("a", refresh_token="r")
    bench.put(State(owner="owner", token=token))
    still = iter([True])
    assert (await bench.run(token, fresh=lambda one: one != token, usable=lambda one: next(still, False))).access_token == "b"
    assert len(store.waits) == 2
    assert bench.sent == ["r"]


async def test_F_04_F_05_while_a_failure_cools_down_a_newer_token_that_is_valid_is_adopted() -> None:
    bench = Bench()
    newer = Token("b", refresh_token="s")
    bench.put(State(owner="owner", token=newer, cooldown_until=bench.clock.time() + 10, failures=1))
    assert await bench.run(Token("a", refresh_token="r"), fresh=lambda token: False) == newer
    with pytest.raises(TokenUnavailable):
        await bench.run(newer, fresh=lambda token: False)
    assert bench.sent == []


# Where the refresh token goes.


async def test_S_51_a_refresh_token_goes_to_no_other_endpoint_than_the_one_that_issued_it() -> None:
    first, second = Token("a", refresh_token="r"), Token("b", refresh_token="s")
    bench = Bench(second)
    bench.put(State(owner="owner", token=first))
    bench.discovered = "https://as.example/token"
    assert await bench.run(first, fresh=lambda token: token != first) == second
    assert bench.state().endpoint == "https://as.example/token"
    bench.discovered = "https://evil.example/token"
    with pytest.raises(DiscoveryError, match="another token endpoint"):
        await bench.run(second, fresh=lambda token: False)
    assert bench.sent == ["r"]
    assert (bench.state().kind, bench.state().token, bench.state().pending) == ("ok", second, None)
    assert bench.state().endpoint == "https://as.example/token"


async def test_S_51_where_the_user_names_the_endpoint_himself_he_may_name_another() -> None:
    first = Token("a", refresh_token="r")
    bench = Bench(Token("b", refresh_token="s"))
    bench.put(State(owner="owner", endpoint="https://old.example/token", token=first))
    assert (await bench.run(first, fresh=lambda token: token != first)).access_token == "b"
    assert bench.state().endpoint is None
