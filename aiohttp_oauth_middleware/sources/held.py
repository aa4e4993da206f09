"""A token in memory, and until when it will do."""

from __future__ import annotations

import math
from typing import Final

from ..clock import Clock
from ..token import Token

__all__ = ("Held",)

LEEWAY_SHARE: Final = 0.2
# By so much of the leeway a renewal may come later. Where requests wait for it, that is little: who comes first shall not find
# that the token has nearly expired. Where it is made in the background nobody waits, so a thousand workers whose tokens are of
# the same second can have half of the leeway to spread over, and the other half is left for the answer.
LEEWAY_JITTER: Final = 0.1
BACKGROUND_JITTER: Final = 0.5
SURE: Final = 1.0


class Held:
    """A token in memory, with its moments on both clocks: whichever says so first is right.

    Asking two clocks for each request would cost more than the rest of it, so a look at both makes sure for a second.

    :ivar sure_until: monotonic seconds until which no clock need be asked what the monotonic one doesn't say.
    :ivar due: monotonic seconds from which it is to be renewed; :ivar:`due_at` the same in epoch seconds.
    :ivar expires: monotonic seconds at which it has expired; :ivar:`expires_at` the same in epoch seconds.
    :ivar born: monotonic seconds at which it was obtained.
    :ivar refused: whether a server has refused it.
    """

    __slots__ = ("born", "due", "due_at", "expires", "expires_at", "refused", "sure_until", "token")

    def __init__(
        self,
        token: Token,
        monotonic: float,
        wall: float,
        leeway: float,
        chance: float = 0.0,
        jitter: float = LEEWAY_JITTER,
    ) -> None:
        self.token = token
        self.refused = False
        # A moment of birth in the future comes from a clock that was wrong, and so then does the expiry.
        impossible = token.obtained_at is not None and token.obtained_at > wall + 1.0
        age = math.inf if token.obtained_at is None or impossible else max(0.0, wall - token.obtained_at)
        self.born = monotonic - age
        if token.expires_at is None:
            self.expires_at = self.due_at = math.inf
        else:
            lifetime = token.lifetime if token.lifetime is not None else max(0.0, token.expires_at - wall)
            # A token that lives for less than the leeway would be due all the time. Jitter keeps a fleet from coming at once.
            lead = min(leeway, LEEWAY_SHARE * lifetime) * (1.0 - jitter * chance)
            self.expires_at = -math.inf if impossible else token.expires_at
            self.due_at = self.expires_at - lead
        if token.refresh_at is not None and token.obtained_at is not None:
            self.due_at = min(self.due_at, max(token.refresh_at, token.obtained_at + 1.0))
        self.expires = monotonic + (self.expires_at - wall)
        self.due = monotonic + (self.due_at - wall)
        self.sure_until = -math.inf

    def fresh(self, clock: Clock) -> bool:
        """Whether it will do, and no newer one is due."""
        return clock.monotonic() < self.due and clock.time() < self.due_at

    def usable(self, clock: Clock) -> bool:
        """Whether it is valid still, though a newer one may be due."""
        return not self.refused and clock.monotonic() < self.expires and clock.time() < self.expires_at

    def refuse(self) -> None:
        """Serve it no more."""
        self.refused = True
        self.due = self.sure_until = -math.inf
