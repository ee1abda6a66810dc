"""Processes that begin warm: started by fork servers, told of when they start and end.

Which server serves, what the next one is to load, and what becomes of both is decided here; what
the processes are for is their runner's affair.
"""

import json
import selectors
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import psutil

from shoal.runners import written
from shoal.runners.base import Log, RunnerError
from shoal.runners.forkserver import ForkServer, Imports
from shoal.runners.launch import Launch
from shoal.runners.preload import imports_of
from shoal.runners.warm.libraries import shared

GRACE_S = 5.0  # between asking a process to end and ending it
WAIT_S = 30.0  # for shared imports, after which processes start without
DEATHS = 4  # of servers in a row, with no process ending in between: something is wrong here
RENEWALS = 12  # of what is shared, in one run
NOTE_BYTES = 1 << 20
OWN = {"cloudpickle", "nni", "shoal"}


@dataclass(frozen=True, slots=True)
class Began:
    """The process `key` has begun."""

    key: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The process `key` has ended, and all that it had started."""

    key: str
    status: int  # as `os.wait` has it
    left: int  # how many processes it had left behind
    anew: str = ""  # why it had begun anew on its way, without shared imports, if it had


@dataclass(frozen=True, slots=True)
class Orphaned:
    """What looked after the process `key` was ended, so that nobody knows how that one ended."""

    key: str
    status: int | None  # of what looked after it; None: that was lost with its server


Event: TypeAlias = Began | Ended | Orphaned


@dataclass(slots=True)
class Process:
    """A process that was asked for."""

    server: ForkServer
    note: Path  # where it tells what it had to import
    pid: int = 0  # known once it has begun
    keeper: int = 0
    due: list[int] = field(default_factory=list)  # signals that it is sent then


class Processes:
    """Starts processes from fork servers, and says what becomes of them.

    Args:
        launch: how each is started.
        imports: what they are to share to begin with.
        env: their environment.
        directory: the working directory of servers.
        output: the file for what servers print.
        selector: where servers are waited for; what is readable there goes to `receive`.
        log: is told what the user should know.

    Attributes:
        launch: how they are started by now: where that cannot be held, by a shell.

    Raises:
        RunnerError: (from any method) none can be started.
    """

    def __init__(
        self,
        launch: Launch,
        imports: Imports,
        *,
        env: Mapping[str, str],
        directory: Path,
        output: Path,
        selector: selectors.BaseSelector,
        log: Log,
    ) -> None:
        self.launch = launch
        self._imports = imports  # what the next server will load
        self._env, self._directory, self._output = env, directory, output
        self._selector, self._log = selector, log
        self._there: dict[str, Process] = {}  # by key
        self._events: list[Event] = []
        self._unshared: set[str] = set()
        self._told: set[str] = set()
        self._renewals = self._deaths = 0
        self._servers: set[ForkServer] = set()
        self._serving: ForkServer | None = None  # starts processes
        self._next: ForkServer | None = None  # is to take over when it is ready
        self._began = self._renewed = time.monotonic()
        self._renew()

    @property
    def ready(self) -> bool:
        """Whether a process can be started now."""
        return self._serving is not None

    @property
    def renewing(self) -> bool:
        """Whether what was learned last is about to be shared: within half a minute, if at all."""
        return self._next is not None and time.monotonic() < self._renewed + WAIT_S

    @property
    def waiting_for(self) -> str | None:
        """What has to come before a process can be started, in words."""
        return self.loading if self._serving is None else None

    @property
    def loading(self) -> str | None:
        """What is awaited of the server that is to take over, in words."""
        if self._next is None:
            return None
        return f"the imports that trials share to be loaded ({self._next.loading or 'starting'})"

    def start(
        self, key: str, *, cwd: Path, env: Mapping[str, str], out: Path, err: Path, note: Path
    ) -> None:
        """Start the process `key`, with `env` besides what all have. To be called when `ready`."""
        server = self._serving
        assert server is not None
        self._there[key] = Process(server, note)
        server.send(
            start=key,
            command=self.launch.command,
            argv=[self.launch.program, *self.launch.argv],
            cwd=str(cwd),
            env=dict(env),
            out=str(out),
            err=str(err),
            note=str(note),
        )

    def signal(self, key: str, number: int) -> None:
        """Send a signal to the process `key` and its session, if it is there."""
        process = self._there.get(key)
        if process is not None and process.pid:
            process.server.send(signal=process.pid, number=number)
        elif process is not None:  # it may have told us of itself before its keeper has
            process.due.append(number)

    def receive(self, server: ForkServer) -> None:
        """Take in what `server`, which is readable, has to say."""
        if server not in self._servers:
            return  # what another has said, which was readable too, was a reason to let go of it
        messages = server.receive()
        if messages is None:
            self._died(server, "died")
            return
        for message in messages:
            match message:
                case {"unfit": name, "why": why}:
                    self._leave_to_trials(name, why)
                case {"loaded": loaded, "failed": failed}:
                    self._loaded(server, loaded, failed)
                case {"started": key, "pid": pid, "keeper": keeper}:
                    self._has_begun(key, pid, keeper)
                case {"ended": key, "status": status, "left": left}:
                    self._deaths = 0
                    self._gone(key, Ended(key, status, left))
                case {"lost": key, "status": status}:
                    self._gone(key, Orphaned(key, status))

    def _has_begun(self, key: str, pid: int, keeper: int) -> None:
        process = self._there.get(key)
        if process is not None:
            process.pid, process.keeper = pid, keeper
            self._events.append(Began(key))
            for number in process.due:
                self.signal(key, number)

    def events(self) -> list[Event]:
        """What has happened since this was asked last, in order."""
        events, self._events = self._events, []
        return events

    def keep_time(self) -> None:
        """See that nobody waits for a server for ever; to be called about once a second."""
        now = time.monotonic()
        for server in list(self._servers):
            if (why := server.silent()) is not None:
                server.kill()
                self._died(server, f"was ended, {why}")
        loading = self._next
        if (
            self._serving is None
            and loading is not None
            and loading.imports.load
            and now > self._began + WAIT_S
            and len(self._servers) == 1
        ):
            self._log("info", f"trials begin without shared imports: {loading.loading} is slow")
            self._start_server(Imports())

    def close(self) -> None:
        """End all servers, and all that still runs."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self._there.clear()
        self._events.clear()

    def _start_server(self, imports: Imports) -> ForkServer:
        server = ForkServer(
            self.launch,
            imports,
            self._env,
            self._directory,
            self._output,
        )
        self._servers.add(server)
        self._selector.register(server, selectors.EVENT_READ)
        return server

    def _renew(self) -> None:
        """Load what is now to be shared in a new server, which takes over when it is ready."""
        if self._next is None:
            self._next = self._start_server(self._imports)
            self._renewed = time.monotonic()

    def _let_go(self, server: ForkServer) -> int:
        self._selector.unregister(server)
        self._servers.discard(server)
        return server.close()

    def _loaded(self, server: ForkServer, loaded: Sequence[str], failed: Mapping[str, str]) -> None:
        if server is self._next:
            self._next = None
        elif self._serving is not None:
            return  # it was to help out, and is not needed any more
        before, self._serving = self._serving, server
        for name, why in failed.items():
            self._leave_to_trials(name, why)
        seconds = time.monotonic() - self._began
        tops = dict.fromkeys(name.partition(".")[0] for name in loaded)
        names = [top for top in tops if top not in sys.stdlib_module_names | OWN]
        if before is not None:
            self._retire(before)
        if names and before is None:
            text = ", ".join(names)
            self._log("info", f"warm start: {text} imported once for all trials ({seconds:.1f} s)")
        if server.imports != self._imports:
            self._renew()

    def _gone(self, key: str, event: Ended | Orphaned) -> None:
        process = self._there.pop(key, None)
        if process is None:
            return
        if isinstance(event, Ended) and self.launch.command is None:
            event = replace(event, anew=self._learn(key, process.note))
        self._events.append(event)
        self._retire(process.server)

    def _retire(self, server: ForkServer) -> None:
        """Let go of a server that starts nothing more, once what it has started has ended."""
        if server is not self._serving and not any(
            process.server is server for process in self._there.values()
        ):
            self._let_go(server)

    def _leave_to_trials(self, name: str, why: str) -> None:
        """Share `name` no longer."""
        top = name.partition(".")[0]
        kept = tuple(n for n in self._imports.load if n.partition(".")[0] != top)
        self._imports = replace(self._imports, load=kept)
        if top not in self._unshared:
            self._unshared.add(top)
            self._log("warning", f"warm start: {name} is left to each trial, {why}")

    def _leave_all_to_trials(self, name: str, why: str) -> None:
        """Share no library any longer: one of them brings `name`, which cannot be shared."""
        libraries = (
            {n.partition(".")[0] for n in self._imports.load} - sys.stdlib_module_names - OWN
        )
        kept = tuple(n for n in self._imports.load if n.partition(".")[0] not in libraries)
        self._imports = replace(self._imports, load=kept)
        self._unshared |= libraries
        if libraries:
            text = f"libraries are left to each trial: one brings {name}, and {why}"
            self._log("warning", f"warm start: {text}")

    def _died(self, server: ForkServer, how: str) -> None:
        """What a server ran is lost, which is not its fault; a new one goes on."""
        code = self._let_go(server)
        was_next, was_serving = server is self._next, server is self._serving
        self._next = None if was_next else self._next
        self._serving = None if was_serving else self._serving
        self._lose(server)
        if not server.ready:
            self._died_loading(server, how, code)
        elif was_serving:
            self._deaths += 1
            self._log("warning", f"the fork server {how} (exit code {code}): a new one is started")
        self._check_deaths(code)
        if was_next or was_serving:
            self._renew()

    def _died_loading(self, server: ForkServer, how: str, code: int) -> None:
        culprit = server.loading
        if culprit and culprit.partition(".")[0] not in self._unshared:
            self._leave_to_trials(culprit, f"the server {how} as it imported it")
        elif not culprit:
            self._deaths += 1
            if self.launch.command is None:
                self._log("warning", f"trials are started by a shell: held, {how} (code {code})")
            self.launch = self.launch.cold

    def _check_deaths(self, code: int) -> None:
        if self._deaths > DEATHS:
            raise RunnerError(
                f"the fork server, which starts the trials, died {self._deaths} times, last with "
                f"exit code {code}: see {self._output}"
            )

    def _lose(self, server: ForkServer) -> None:
        """Tell of what has ended with `server`."""
        for key in [key for key, process in self._there.items() if process.server is server]:
            process = self._there.pop(key)
            with suppress(psutil.Error):
                if process.keeper:  # which ends what it kept, and then itself
                    psutil.Process(process.keeper).wait(GRACE_S)
            self._events.append(Orphaned(key, None))

    def _learn(self, key: str, file: Path) -> str:
        """Share what a process had to import by itself; tell the user what is slow.

        Comes back with why it had begun anew, if it had.
        """
        note = read_note(file)
        before, anew = self._imports, ""
        match note:
            case {"cold": str(why), "library": str(library), "variables": dict(variables)}:
                anew = why
                if "cold" not in self._told:
                    self._told.add("cold")
                    trial, attempt, _ = key.partition("/")
                    who = f"trial {trial}" if attempt else key
                    self._log("info", f"warm start: {who} began anew, {why}")
                known = {k: v for k, v in self._imports.environ.items() if k in variables}
                if variables and known.items() <= variables.items():
                    environ = {**self._imports.environ, **variables}
                    self._imports = replace(self._imports, environ=environ)
                elif library.partition(".")[0] in self._unshared:
                    self._leave_all_to_trials(library, why)
                else:  # another path, or a variable that each trial sets to something else
                    self._leave_to_trials(library, why)
            case {"imports": list(names), "slow": dict(slow)}:
                new = (
                    str(name)
                    for name in names
                    if name.partition(".")[0] not in self._unshared
                    and name not in self._imports.load
                )
                self._imports = replace(self._imports, load=(*self._imports.load, *new))
                self._tell_slow(slow)
        if self._imports != before and self._renewals < RENEWALS:
            self._renewals += 1
            self._renew()
        return anew

    def _tell_slow(self, slow: Mapping[str, float]) -> None:
        for name, seconds in slow.items():
            if name in self._told or name.partition(".")[0] in self._unshared:
                continue
            self._told.add(name)
            self._log(
                "info",
                f"each trial imports {name}, which takes {seconds:.1f} s; "
                f"`preload: [{name}]` in the experiment file shares it",
            )


def first_guess(launch: Launch, preload: Sequence[str]) -> Imports:
    """What to share before any trial has told: what the text of the script says it imports."""
    if launch.command is not None:
        return Imports()
    more = frozenset(name.partition(".")[0] for name in preload)
    text = [] if launch.script is None else imports_of(launch.script, launch.folder)
    names = dict.fromkeys([*preload, *(name for name in text if shared(name, more))])
    if "-m" in launch.argv:
        names["runpy"] = None
    return Imports(tuple(names), tuple(preload), launch.folder)


def read_note(file: Path) -> object:
    """What a trial has noted about its imports; None if nothing."""
    try:
        return json.loads(written.read(file, 0, NOTE_BYTES))
    except (ValueError, RecursionError):
        return None
