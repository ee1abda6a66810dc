"""What happens, told to pages as it does: server-sent events."""

import json
import time
from asyncio import Event, Task, create_task, sleep, wait_for
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse

from shoal.home import ExperimentError
from shoal.web.followed import Home, Unknown

LOOK_S = 0.25  # how often we look whether something has happened
REST = 20  # times as long as a look takes passes before the next: a home of thousands takes a while
LONGEST_S = 2.0
SIGN_S = 15.0  # how often we say that we are still here
LIST = ""  # what is listened to by whoever sees all experiments


@dataclass
class Channel:
    """What pages listen to: one experiment, or the list of them."""

    listeners: int = 0
    due: float = 0.0  # on the monotonic clock: when it is time to look again
    version: str = ""
    state: dict[str, Any] = field(default_factory=dict)
    changed: Event = field(default_factory=Event)


class Events:
    """Looks at what pages listen to, once for all of them, and wakes them."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._channels: dict[str, Channel] = {}
        self._looking: Task[None] | None = None
        self.closing = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for as long as this is entered."""
        self._looking = create_task(self._look())
        try:
            yield
        finally:
            self.close()
            self._looking.cancel()

    def close(self) -> None:
        """Let whoever listens go."""
        self.closing = True
        for channel in self._channels.values():
            channel.changed.set()

    async def stream(self, request: Request, id: str) -> StreamingResponse:
        """The events of the experiment `id`, or of the list.

        Raises:
            Unknown: there is no such experiment.
        """
        if id != LIST:
            await to_thread.run_sync(self._home.get, id)
        seen = request.headers.get("last-event-id", "")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            self._told(id, seen), media_type="text/event-stream", headers=headers
        )

    async def _told(self, id: str, seen: str) -> AsyncIterator[str]:
        channel = self._channels.setdefault(id, Channel())
        channel.listeners += 1
        try:
            yield "retry: 1000\n\n"
            signed = time.monotonic()
            while not self.closing:
                changed = channel.changed  # before we look: what comes while we tell counts, too
                if channel.version and channel.version != seen:
                    seen, signed = channel.version, time.monotonic()
                    yield message(seen, channel.state)
                elif time.monotonic() > signed + SIGN_S:
                    signed = time.monotonic()
                    yield ": here\n\n"
                await either(changed, SIGN_S)
        finally:
            channel.listeners -= 1
            if not channel.listeners:
                self._channels.pop(id, None)

    async def _look(self) -> None:
        while True:
            for id, channel in list(self._channels.items()):
                if (began := time.monotonic()) < channel.due:
                    continue
                version, state = await to_thread.run_sync(self._now, id)
                now = time.monotonic()
                channel.due = now + min(LONGEST_S, REST * (now - began))
                if version != channel.version:
                    channel.version, channel.state = version, state
                    channel.changed.set()
                    channel.changed = Event()
            await sleep(LOOK_S)

    def _now(self, id: str) -> tuple[str, dict[str, Any]]:
        """(version, what a page is told at once)."""
        if id == LIST:
            return self._home.version(), {}
        try:
            followed = self._home.get(id)
            version = followed.refresh()
            now = followed.now()
            tally = now.tally
        except Unknown:
            return "gone", {"gone": True}
        except ExperimentError as error:
            return "unreadable", {"error": str(error)}
        return version, {"state": now.state, "trials": tally.trials, "finished": tally.finished}


def message(version: str, state: dict[str, Any]) -> str:
    """An event as it is written."""
    return f"id: {version}\nevent: changed\ndata: {json.dumps(state)}\n\n"


async def either(event: Event, seconds: float) -> None:
    """Return once `event` is set, or after so many seconds."""
    try:
        await wait_for(event.wait(), seconds)
    except TimeoutError:
        return
