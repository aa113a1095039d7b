"""Who is told of which procedure steps: UPS subscriptions and deletion locks (PS3.4 §CC.2.3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from .matching import CompiledQuery

if TYPE_CHECKING:
    from pydicom import Dataset


AT_ONCE = 64
"""Steps that are looked at before other tasks have their turn."""

T = TypeVar("T")


async def in_turns(steps: Iterable[T]) -> AsyncGenerator[T]:
    """Steps of which there may be many, so that other tasks go on meanwhile; not cancelled."""
    for number, step in enumerate(steps, 1):
        yield step
        if number % AT_ONCE == 0:
            await trio.lowlevel.cancel_shielded_checkpoint()


@attrs.frozen
class GlobalSubscription:
    """A subscription to all steps, or those that match; `lock` is the deletion lock."""

    lock: bool
    matching: CompiledQuery | None = None

    def covers(self, step: Dataset) -> bool:
        return self.matching is None or self.matching.matches(step)


@attrs.define
class Subscriber:
    """What one AE is subscribed to.

    Attributes:
        every: Its global subscription, if it has one: to the steps that will be created.
        steps: The steps that it is subscribed to, and whether with a deletion lock.
    """

    every: GlobalSubscription | None = None
    steps: dict[str, bool] = attrs.field(factory=dict[str, bool])


class Subscriptions:
    """The subscriptions of all AEs (PS3.4 Table CC.2.3-2)."""

    def __init__(self) -> None:
        self._subscribers: dict[str, Subscriber] = {}

    def __len__(self) -> int:
        return len(self._subscribers)

    def __contains__(self, ae_title: str) -> bool:
        return ae_title in self._subscribers

    @property
    def ae_titles(self) -> list[str]:
        """Every AE that is subscribed to anything."""
        return list(self._subscribers)

    def of_step(self, uid: str) -> list[str]:
        """The AEs that are told of a step."""
        return [title for title, who in self._subscribers.items() if uid in who.steps]

    def is_locked(self, uid: str) -> bool:
        """Whether somebody has a deletion lock on a step."""
        return any(who.steps.get(uid, False) for who in self._subscribers.values())

    def created(self, uid: str, step: Dataset) -> None:
        """A step is new: subscribe those to it who have asked for all that come."""
        for subscriber in self._subscribers.values():
            if subscriber.every is not None and subscriber.every.covers(step):
                subscriber.steps[uid] = subscriber.every.lock

    def removed(self, uid: str) -> None:
        """A step has been deleted."""
        for title, subscriber in list(self._subscribers.items()):
            subscriber.steps.pop(uid, None)
            self._tidy(title)

    def subscribe(self, ae_title: str, uid: str, lock: bool) -> str:
        """Subscribe an AE to a step, which is returned; of one that it has, the lock is changed."""
        self._subscribers.setdefault(ae_title, Subscriber()).steps[uid] = lock
        return uid

    def subscribe_to_all(
        self, ae_title: str, subscription: GlobalSubscription, covered: Iterable[str]
    ) -> list[str]:
        """Subscribe an AE to all steps, of which these are covered; those that are new to it.

        Subscriptions to single steps stay as they are.
        """
        subscriber = self._subscribers.setdefault(ae_title, Subscriber())
        subscriber.every = subscription
        new = [uid for uid in covered if uid not in subscriber.steps]
        subscriber.steps.update(dict.fromkeys(new, subscription.lock))
        return new

    def unsubscribe(self, ae_title: str, uid: str | None) -> None:
        """End an AE's subscription to a step, or without `uid` all that it has."""
        subscriber = self._subscribers.get(ae_title)
        if subscriber is None:
            return
        if uid is None:
            del self._subscribers[ae_title]
            return
        subscriber.steps.pop(uid, None)
        self._tidy(ae_title)

    def suspend(self, ae_title: str) -> None:
        """No more subscriptions to new steps for an AE."""
        if ae_title in self._subscribers:
            self._subscribers[ae_title].every = None
            self._tidy(ae_title)

    def _tidy(self, ae_title: str) -> None:
        subscriber = self._subscribers[ae_title]
        if subscriber.every is None and not subscriber.steps:
            del self._subscribers[ae_title]
