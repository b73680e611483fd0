"""Where requests go, by numbers alone."""

import random
from collections import deque
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from reference import capabilities

from outcrop.backends.fake import FakeBackend
from outcrop.engine.core import EngineCore
from outcrop.engine.holdings import Holdings
from outcrop.engine.messages import GenerationRequest, SamplingParams
from outcrop.engine.policy import Interleave
from outcrop.engine.prefix_keys import prefix_keys
from outcrop.engine.router import LEAD, Router, Ticket
from outcrop.engine.stats import EngineStats
from outcrop.engine.tournament import Tournament

BLOCK = 4


def router(replicas: int = 3, blocks: int = 1000) -> Router:
    made = Router(replicas, BLOCK)
    for replica in range(replicas):
        made.enter(replica, blocks)
    return made


def send(to: Router, prompt: Sequence[int], *, limit: int = 10, salt: str = "", **options: object) -> Ticket:
    ticket = to.choose(prefix_keys(prompt, salt, BLOCK), len(prompt), limit, **options)  # type: ignore[arg-type]
    assert ticket is not None
    return ticket


def words(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(1000), k=count)


# -- keys ------------------------------------------------------------------------------------------


def test_a_key_stands_for_its_block_all_before_it_and_the_tenant() -> None:
    tokens = words(1, 11)
    keys = prefix_keys(tokens, "a", BLOCK)
    assert len(keys) == 2
    assert prefix_keys([*tokens[:8], *words(2, 9)], "a", BLOCK)[:2] == keys
    assert not set(keys) & set(prefix_keys(tokens, "b", BLOCK))
    assert not set(keys) & set(prefix_keys(tokens[4:], "a", BLOCK))
    longer = [*tokens, *words(3, 6)]
    assert keys + prefix_keys(longer, "a", BLOCK, keys) == prefix_keys(longer, "a", BLOCK)


# -- choices ---------------------------------------------------------------------------------------


def test_requests_go_to_the_replica_with_the_fewest_tokens_in_flight() -> None:
    to = router()
    first, second, third = (send(to, words(seed, length)) for seed, length in ((1, 30), (2, 10), (3, 20)))
    assert sorted((first.replica, second.replica, third.replica)) == [0, 1, 2]
    assert send(to, words(4, 5)).replica == second.replica
    assert [to.load(replica) for replica in (first.replica, third.replica)] == [40, 30]
    to.release(third)
    assert send(to, words(5, 5)).replica == third.replica


def test_an_idle_fleet_fills_all_its_caches() -> None:
    to = router()
    homes = []
    for seed in range(6):
        homes.append((ticket := send(to, words(seed, 40))).replica)
        to.release(ticket)
    assert sorted(homes) == [0, 0, 1, 1, 2, 2]


def test_a_conversation_stays_where_its_beginning_is_and_a_tenant_sees_no_other() -> None:
    to = router()
    history = words(1, 40)
    home = send(to, history)
    to.started(home, 0)
    to.release(home, 6, prefix_keys([*history, *words(2, 6)], "", BLOCK, home.keys))
    others = [send(to, words(seed, 8)) for seed in range(3, 6)]
    again = send(to, [*history, *words(2, 6), *words(9, 10)])
    assert (again.replica, again.held, again.computed) == (home.replica, 11, 11)
    assert again.weight == 56 - 44 + 10
    assert to.routing.prefix == 1
    for ticket in (*others, again):
        to.release(ticket)
    stranger = send(to, history, salt="stranger")
    assert stranger.held == 0


def test_no_beginning_however_popular_overloads_a_replica() -> None:
    to = router(4)
    shared = words(1, 40)
    tickets = [send(to, [*shared, *words(seed, 12)]) for seed in range(2, 200)]
    loads = [to.load(replica) for replica in range(4)]
    assert max(loads) - min(loads) <= LEAD * len(shared) + max(ticket.weight for ticket in tickets)
    assert to.routing.prefix > 180  # everybody holds it soon
    # Nor does one that is long: it counts for no more than a share of the KV memory.
    small = router(2, blocks=40)
    for seed in range(50):
        send(small, [*words(1, 400), *words(seed, 8)])
    assert abs(small.load(0) - small.load(1)) <= 40 * BLOCK / 4 + 420


def test_a_session_goes_on_where_it_was_unless_that_is_much_busier() -> None:
    to = router()
    home = send(to, words(1, 3), session="s")
    to.release(home)
    send(to, words(2, 9))
    assert send(to, words(3, 10), session="s").replica == home.replica
    assert to.routing.session == 1
    for _ in range(3):
        send(to, words(4, 200), among=[home.replica])
    assert send(to, words(5, 3), session="s").replica != home.replica
    # The beginning of a prompt says more than its session.
    held = send(to, words(6, 40))
    to.release(held)
    assert send(to, words(6, 40), session="s").replica == held.replica


def test_background_repels_nobody_but_itself() -> None:
    to = router(2)
    batch = send(to, words(1, 500), background=True)
    online = [send(to, words(seed, 10)).replica for seed in range(2, 4)]
    assert sorted(online) == [0, 1]
    assert send(to, words(5, 10), background=True).replica != batch.replica


def test_a_lost_replica_gets_nothing_and_is_believed_to_hold_nothing() -> None:
    to = router(2)
    home = send(to, words(1, 40))
    to.leave(home.replica)
    assert to.in_rotation == 1
    assert {send(to, words(1, 40)).replica for _ in range(3)} == {1 - home.replica}
    to.enter(home.replica, 1000)
    to.release(home)  # says nothing about the replica's new life
    assert to.load(home.replica) == 0
    assert send(to, words(2, 20)).replica == home.replica
    for replica in range(2):
        to.leave(replica)
    assert to.choose([], 1, 1) is None


def test_a_replica_that_found_less_than_expected_is_believed_to_hold_less() -> None:
    to = router(2)
    first = send(to, words(1, 40))
    to.started(first, 0)
    to.release(first)
    second = send(to, words(2, 40), among=[first.replica])
    to.started(second, 0)
    to.release(second)
    third = send(to, [*words(2, 40), 7, 7], among=[first.replica])
    assert third.computed == 10
    to.started(third, 8)  # so it has evicted, first what came first
    assert send(to, words(1, 40), among=[first.replica]).held == 10 - (10 - 2 - 1)


def test_what_is_expected_of_an_answer_follows_the_answers() -> None:
    to = router(1)
    for _ in range(400):
        to.release(send(to, words(1, 4), limit=10_000), generated=20)
    assert send(to, words(2, 4), limit=10_000).weight < 4 + 25
    assert send(to, words(3, 4), limit=5).weight == 4 + 5


# -- parts -----------------------------------------------------------------------------------------


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(0, 39), st.one_of(st.just(float("inf")), st.integers(0, 9)))),
)
def test_the_least_is_the_first_of_the_least(count: int, changes: list[tuple[int, float]]) -> None:
    values = [5.0] * count
    tournament = Tournament(count, 5.0)
    for index, value in changes:
        values[index % count] = value
        tournament.set(index % count, value)
        assert tournament.least == min(range(count), key=values.__getitem__)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 6), st.booleans()), max_size=60)
)
def test_whoever_holds_a_key_holds_those_before_it(uses: list[tuple[int, int, int, bool]]) -> None:
    """Four conversations that part from each other block by block, and room for less than two."""
    holdings = Holdings(3)
    for replica in range(3):
        holdings.set_room(replica, 7)
    held: list[list[int]] = [[], [], []]  # what replicas hold, computed the slow way
    for replica, conversation, length, computed in uses:
        tokens = [token // (conversation + 1) for token in range(length * BLOCK)]
        keys = prefix_keys(tokens, "", BLOCK)
        holdings.promise(replica, keys)
        if computed:
            holdings.begun(replica, keys)
        held[replica] = [*(key for key in held[replica] if key not in keys), *reversed(keys)][-7:]
        for each in range(3):
            expected = 0
            while expected < len(keys) and keys[expected] in held[each]:
                expected += 1
            assert holdings.held(each, keys)[0] == expected
            assert holdings.count(each) == len(held[each])
        assert holdings.depth(keys) == max(holdings.held(each, keys)[0] for each in range(3))
        assert not computed or holdings.held(replica, keys)[1] == len(keys)


class Lives(RuleBasedStateMachine):
    """Any requests at replicas that come and go: the books agree with a count of what is open."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(3, BLOCK)
        self.up: set[int] = set()
        self.open: list[Ticket] = []

    @rule(replica=st.integers(0, 2))
    def enter(self, replica: int) -> None:
        self.lose(replica)
        self.router.enter(replica, 30)
        self.up.add(replica)

    @rule(replica=st.integers(0, 2))
    def leave(self, replica: int) -> None:
        self.lose(replica)
        self.router.leave(replica)
        self.up.discard(replica)

    def lose(self, replica: int) -> None:
        self.open = [ticket for ticket in self.open if ticket.replica != replica]

    @precondition(lambda self: self.up)
    @rule(
        target=tickets,
        seed=st.integers(0, 4),
        length=st.integers(1, 60),
        background=st.booleans(),
        session=st.sampled_from([None, "a", "b"]),
    )
    def choose(self, seed: int, length: int, background: bool, session: str | None) -> Ticket:
        ticket = send(self.router, words(seed, length), background=background, session=session)
        assert ticket.replica in self.up
        self.open.append(ticket)
        return ticket

    @precondition(lambda self: not self.up)
    @rule()
    def choose_nobody(self) -> None:
        assert self.router.choose([], 4, 4) is None

    @rule(ticket=tickets, cached=st.integers(0, 60))
    def start(self, ticket: Ticket, cached: int) -> None:
        self.router.started(ticket, cached)

    @rule(ticket=consumes(tickets), generated=st.integers(0, 99))
    def release(self, ticket: Ticket, generated: int) -> None:
        self.router.release(ticket, generated)
        if ticket in self.open:
            self.open.remove(ticket)

    @invariant()
    def loads_are_of_what_is_open(self) -> None:
        assert self.router.in_rotation == len(self.up)
        for replica in self.up:
            weights = [ticket.weight for ticket in self.open if ticket.replica == replica]
            assert self.router.load(replica) == sum(weights)


Lives.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLives = Lives.TestCase


# -- with real engines -----------------------------------------------------------------------------


def hit_share(replicas: int) -> tuple[float, Router]:
    """The share of prompt tokens that prefix caches serve, of engines that step in turn: 40 conversations of
    5 turns, three in ten with a system prompt in common, and caches too small for all that has been."""
    dice = random.Random(5)
    caps = capabilities(max_rows=8, num_blocks=480 // replicas, max_model_len=400, vocab_size=1000)
    cores = [EngineCore(FakeBackend(caps), Interleave()) for _ in range(replicas)]
    to = Router(replicas, caps.block_size)
    for replica in range(replicas):
        to.enter(replica, caps.num_blocks)
    system = words(77, 40)
    talks = [(system if dice.random() < 0.3 else []) + dice.choices(range(1000), k=30) for _ in range(40)]
    later: deque[tuple[int, int, int]] = deque(sorted((dice.randrange(800), talk, 0) for talk in range(40)))
    open_requests: dict[str, tuple[int, int, Ticket, list[int]]] = {}
    tick = 0

    def ask(talk: int, turn: int) -> None:
        name, prompt = f"{talk}-{turn}", list(talks[talk])
        ticket = send(to, prompt, limit=12)
        cores[ticket.replica].add(GenerationRequest(name, prompt, SamplingParams(12)))
        open_requests[name] = (talk, turn, ticket, prompt)

    def begun(requests: Sequence[object]) -> None:
        for request in requests:
            _, _, ticket, _ = open_requests[request.id]  # type: ignore[attr-defined]
            to.started(ticket, request.cached)  # type: ignore[attr-defined]

    for core in cores:
        core.on_prefill = begun
    while later or open_requests:
        while later and later[0][0] <= tick:
            _, talk, turn = later.popleft()
            ask(talk, turn)
        for core in cores:
            news = core.step()
            if not news:
                continue
            for final in news.others:
                talk, turn, ticket, prompt = open_requests.pop(final.request_id)
                # Whose tokens they are does not matter here: another user's words are as good.
                talks[talk] = [*prompt, *final.tokens, *words(talk * 10 + turn, 8)]
                to.release(ticket, final.generated)
                if turn < 4:
                    later.append((tick + dice.randrange(5, 40), talk, turn + 1))
                    later = deque(sorted(later))
        tick += 1
    stats = EngineStats.sum(core.stats() for core in cores)
    return stats.prefix_hits / stats.prefix_queries, to


def test_conversations_find_their_beginnings_as_on_one_replica() -> None:
    alone, _ = hit_share(1)
    assert alone > 0.5
    shared, to = hit_share(4)
    assert shared >= 0.9 * alone
    assert to.routing.load > 20
