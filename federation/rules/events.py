"""What happened, as far as privacy is concerned: DP events. ``federation.rules.accounting`` interprets them.

An event is a small document that says which mechanism ran with which parameters, and on whom; it is signed in updates
and stored in budgets. Unit throughout: add or remove one subject. A noise multiplier is the noise's standard deviation
divided by the L2 sensitivity.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from federation.errors import PeerError
from federation.rules.canonical import canonical_bytes, parse_canonical
from federation.rules.parts import EVERYBODY, Part, bits_of, overlap, rest_of, within
from federation.rules.wire import Number, Wire, describe

if TYPE_CHECKING:
    import dp_accounting

QUANTUM: Final = Decimal("1e-6")
NOISE_MULTIPLIER_MAX: Final = Decimal(10**6)
EVENT_BYTES_MAX: Final = 64 * 1024
REPEATS_MAX: Final = 1_000_000
_PARTS_MAX: Final = 1024
_CACHED_MAX: Final = 4096


class GaussianEvent(Wire):
    """The Gaussian mechanism on all eligible subjects."""

    type: Literal["gaussian"] = "gaussian"
    noise_multiplier: Annotated[Number, Field(ge=QUANTUM, le=NOISE_MULTIPLIER_MAX)]


class PoissonEvent(Wire):
    """A Gaussian mechanism on a Poisson sample: each subject independently with probability ``rate``."""

    type: Literal["poisson"] = "poisson"
    rate: Annotated[Number, Field(ge=Decimal("1e-9"), le=1)]
    event: GaussianEvent


class RepeatedEvent(Wire):
    """The same event ``count`` times, with fresh noise each time."""

    type: Literal["repeated"] = "repeated"
    count: Annotated[int, Field(ge=1, le=REPEATS_MAX)]
    event: "WholeEvent"


class ComposedEvent(Wire):
    """Several events after one another."""

    type: Literal["composed"] = "composed"
    events: Annotated[tuple["WholeEvent", ...], Field(min_length=1, max_length=_PARTS_MAX)]


class PartEvent(Wire):
    """An event on one part of the people (``federation.rules.parts``): whoever is outside of it loses nothing."""

    type: Literal["part"] = "part"
    part: Part
    event: "WholeEvent"


class RestEvent(Wire):
    """An event on everybody but one part of the people; whoever belongs to that part loses nothing."""

    type: Literal["rest"] = "rest"
    part: Part
    event: "WholeEvent"


WholeEvent: TypeAlias = Annotated[
    GaussianEvent | PoissonEvent | RepeatedEvent | ComposedEvent, Field(discriminator="type")
]
DpEvent: TypeAlias = Annotated[
    GaussianEvent | PoissonEvent | RepeatedEvent | ComposedEvent | PartEvent | RestEvent, Field(discriminator="type")
]
EventJson: TypeAlias = Mapping[str, Any]
"""An event as it travels: parsed JSON, such as ``{"type": "gaussian", "noise_multiplier": "5.8"}``."""
Mechanism: TypeAlias = tuple[Decimal, Decimal]
"""(sampling rate, noise multiplier): what an event consists of once it is flattened."""

RepeatedEvent.model_rebuild()
ComposedEvent.model_rebuild()
PartEvent.model_rebuild()
RestEvent.model_rebuild()
_ADAPTER: Final[TypeAdapter[DpEvent]] = TypeAdapter(DpEvent)


def event_json(event: DpEvent) -> dict[str, Any]:
    """The event as it travels inside signed documents."""
    document: dict[str, Any] = event.model_dump(mode="json")
    return document


def event_bytes(event: EventJson | DpEvent) -> bytes:
    """The event's canonical JSON bytes: one text for one event.

    Raises:
        PeerError: not an event, or out of bounds.
    """
    return canonical_bytes(event_json(read_event(event)))


def parse_event(data: bytes) -> DpEvent:
    """Read an event from its canonical bytes.

    Raises:
        PeerError: too large, not canonical, not an event, or out of bounds.
    """
    return _parsed(bytes(data))


def read_event(document: EventJson | DpEvent) -> DpEvent:
    """Read an event from parsed JSON (the caller has bounded its size); an event that was read already stays itself.

    Raises:
        PeerError: not an event, or out of bounds.
    """
    if isinstance(document, Wire):
        return document
    try:
        event = _ADAPTER.validate_python(document)
    except (ValidationError, RecursionError) as error:
        why = describe(error) if isinstance(error, ValidationError) else "it nests too deeply"
        raise PeerError(
            f"A DP event is refused: {why}.", remedy="Both sides need the same version of Accord."
        ) from error
    if sum(mechanisms(event).values()) > REPEATS_MAX:
        raise PeerError(
            f"A DP event is refused: it composes more than {REPEATS_MAX} mechanisms.",
            remedy="Ask its author for an event that one round can hold.",
        )
    return event


def mechanisms(*events: EventJson | DpEvent) -> Counter[Mechanism]:
    """How often each mechanism runs in ``events``: composition is commutative, so this is all an accountant needs."""
    counts: Counter[Mechanism] = Counter()
    for event in events:
        for mechanism, count in _flattened(read_event(event)):
            counts[mechanism] += count
    return counts


def part_of_event(event: EventJson | DpEvent) -> str:
    """The part of the people that an event runs on; empty: everybody; ``!01``: everybody but those of ``01``."""
    read = read_event(event)
    if isinstance(read, RestEvent):
        return rest_of(read.part)
    return read.part if isinstance(read, PartEvent) else EVERYBODY


def concerning(part: str, events: Iterable[EventJson | DpEvent]) -> list[DpEvent]:
    """Those of ``events`` that cost anybody of ``part`` anything."""
    return [read for read in map(read_event, events) if overlap(part, part_of_event(read))]


def people(events: Iterable[EventJson | DpEvent]) -> dict[str, list[DpEvent]]:
    """What each person lost: for every part, as small as ``events`` tell people apart, the events that ran on it."""
    read = [read_event(event) for event in events]
    bits = max((bits_of(part_of_event(event)) for event in read), default=0)
    parts = ["".join(part) for part in itertools.product("01", repeat=bits)]
    return {part: [event for event in read if within(part, part_of_event(event))] for part in parts}


def repeated(event: EventJson | DpEvent, count: int) -> DpEvent:
    """An event ``count`` times over, on the same people."""
    read = read_event(event)
    if isinstance(read, PartEvent | RestEvent):
        return type(read)(part=read.part, event=RepeatedEvent(count=count, event=read.event))
    return RepeatedEvent(count=count, event=read)


def to_dp_event(event: EventJson | DpEvent) -> "dp_accounting.DpEvent":
    """The event in ``dp_accounting``'s own types, of the same structure: what it costs whoever it runs on."""
    import dp_accounting

    match read_event(event):
        case GaussianEvent(noise_multiplier=noise):
            return dp_accounting.GaussianDpEvent(float(noise))
        case PoissonEvent(rate=rate, event=inner):
            return dp_accounting.PoissonSampledDpEvent(float(rate), to_dp_event(inner))
        case RepeatedEvent(count=count, event=repeated):
            return dp_accounting.SelfComposedDpEvent(to_dp_event(repeated), count)
        case ComposedEvent(events=parts):
            return dp_accounting.ComposedDpEvent([to_dp_event(part) for part in parts])
        case PartEvent(event=whole) | RestEvent(event=whole):
            return to_dp_event(whole)


@functools.lru_cache(maxsize=_CACHED_MAX)
def _parsed(data: bytes) -> DpEvent:
    """One text is one event: a ledger that is read again and again parses each once. Events are frozen."""
    return read_event(parse_canonical(data, max_bytes=EVENT_BYTES_MAX))


@functools.lru_cache(maxsize=_CACHED_MAX)
def _flattened(event: DpEvent) -> tuple[tuple[Mechanism, int], ...]:
    return tuple(_flatten(event, 1))


def _flatten(event: DpEvent, times: int) -> Iterator[tuple[Mechanism, int]]:
    match event:
        case GaussianEvent():
            yield (Decimal(1), event.noise_multiplier), times
        case PoissonEvent():
            yield (event.rate, event.event.noise_multiplier), times
        case RepeatedEvent():
            yield from _flatten(event.event, times * event.count)
        case ComposedEvent():
            for part in event.events:
                yield from _flatten(part, times)
        case PartEvent() | RestEvent():
            yield from _flatten(event.event, times)
