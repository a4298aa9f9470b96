"""
How a client is put together; nothing is opened or asked here.

What decodes pictures, polls, downloads and takes in callbacks is loaded late: a first request needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from kling_async.client.background import Background
from kling_async.client.clock import Clock
from kling_async.client.creation import Rules
from kling_async.client.emitter import Emitter
from kling_async.client.engine import Engine
from kling_async.client.late import Late
from kling_async.client.link import Link
from kling_async.client.queries import Queries
from kling_async.client.settings import Settings
from kling_async.errors import ConfigError
from kling_async.protocol.auth import Signer, fingerprint
from kling_async.protocol.endpoints import is_loopback
from kling_async.protocol.limits import Limit
from kling_async.protocol.pictures import PictureRules
from kling_async.transport.larder import Larder
from kling_async.transport.sessions import Connection, Session
from kling_async.transport.stock import Stock
from kling_async.transport.turns import Turns

if TYPE_CHECKING:
    import aiohttp

    from kling_async.client.callbacks import Callbacks
    from kling_async.client.poller import Poller
    from kling_async.client.results import Downloads
    from kling_async.client.sharing import Sharing
    from kling_async.client.subscriptions import Watcher
    from kling_async.protocol.callbacks import Verifier
    from kling_async.slots.store import SlotStore
    from kling_async.transport.stand_in import StandIn, StandInSession

__all__ = ["Network", "callbacks_of", "engine_of", "network_of", "picture_rules", "share", "watchers_of"]


@frozen
class Network:
    """What lies under a client: how its hosts are reached, *way* if the caller lends it, and the clock that goes with it."""

    connection: Connection
    way: aiohttp.ClientSession | StandInSession | None
    larder: Larder
    clock: Clock


def network_of(
    connection: Connection, session: aiohttp.ClientSession | StandIn | None, picture_cache: int, clock: Clock
) -> Network:
    """Put the network together; under a stand-in pauses take as long as that says."""
    larder = Larder(picture_cache)
    if session is None:
        return Network(connection, None, larder, clock)
    from kling_async.transport.stand_in import StandInSession, lent

    way = lent(session)
    clock = Clock.hurried(way.pace) if isinstance(way, StandInSession) else clock
    return Network(connection, way, larder, clock)


def engine_of(settings: Settings, network: Network, rules: Rules, interval: float) -> Engine:
    """Put the engine together; tasks are asked for each *interval* seconds at most."""
    background, emitter, turns = Background(), Emitter(), Turns()
    links = tuple(
        Link(
            name,
            Signer(credentials),
            Session(network.connection, network.way, network.larder, turns),
            slots,
            network.clock,
            emitter,
        )
        for name, credentials, slots in settings.accounts
    )
    engine = Engine(
        links,
        network.clock,
        background,
        emitter,
        Late(lambda: _poller(engine, rules, interval)),
        Late(lambda: _downloads(network, rules, emitter)),
        stock=Stock(network.larder),
    )
    return engine


def _poller(engine: Engine, rules: Rules, interval: float) -> Poller:
    from kling_async.client.poller import Poller

    poller = Poller(engine.clock, engine.background, engine.emitter, rules.timeouts, interval)
    poller.bind = lambda link, path, task: Queries(engine, rules, path).bound(link, task)
    return poller


def _downloads(network: Network, rules: Rules, emitter: Emitter) -> Downloads:
    from kling_async.client.results import Downloads
    from kling_async.transport.downloads import FetchRules

    connection = network.connection
    fetch = FetchRules(
        timeout=rules.timeouts.download,
        allow_private=is_loopback(connection.base_url),
        proxy=connection.proxy,
        trust_env=connection.trust_env,
    )
    return Downloads.under(fetch, network.clock, emitter, network.way)


def share(engine: Engine, store: SlotStore) -> None:
    """Have the accounts of *engine* share their slots with other processes through *store*."""
    for link in engine.links:
        account = fingerprint(link.signer.credentials)
        link.slots = link.slots or store.limit
        link.share = _sharer(engine, store, account)


def _sharer(engine: Engine, store: SlotStore, account: str) -> Callable[[str, Limit], Sharing]:
    from kling_async.client.sharing import Sharing

    return lambda model, limit: Sharing(f"{account}:{model}", limit, store, engine.clock, engine.background)


def callbacks_of(engine: Engine, url: str | None, verifier: Verifier | None) -> Late[Callbacks]:
    """
    Have creates name an address below *url* for callbacks, and return what takes them in.

    Raises `ConfigError` for what is no address.
    """
    segment = ""
    if url is not None:
        from kling_async.protocol.callbacks import private_address

        engine.callback_url, segment = private_address(
            url, [link.signer.credentials for link in engine.links]
        )
    return Late(lambda: _callbacks(engine, segment, verifier))


def _callbacks(engine: Engine, segment: str, verifier: Verifier | None) -> Callbacks:
    from kling_async.client.callbacks import Callbacks

    return Callbacks(engine, engine.callback_url, segment, verifier)


def picture_rules(fit: Literal["auto"] | None, verify: Literal["header", "full"]) -> PictureRules:
    """Return how pictures are taken in; raises `ConfigError`, and `MissingExtra` if they are to be decoded without Pillow."""
    rules = PictureRules(fit=fit, verify=verify)
    if rules.need_pillow:
        from kling_async.transport.fitting import require_pillow

        require_pillow(rules)
    return rules


def watchers_of(given: Watcher | Iterable[Watcher] | None) -> tuple[Watcher, ...]:
    """Return *given*, one or more, as several; raises `ConfigError` for what cannot be called."""
    if given is None:
        return ()
    watchers = tuple(given) if isinstance(given, Iterable) and not callable(given) else (given,)
    for watcher in watchers:
        if not callable(watcher):
            raise ConfigError(
                f"on_event: expected a function or a list of them, found {type(watcher).__name__}"
            )
    return watchers
