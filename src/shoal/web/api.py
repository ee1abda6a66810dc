"""All that can be asked for, in one table; docs and OpenAPI document come from it."""

import io
import os
import tarfile
from collections.abc import Iterator
from json import dumps
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from shoal import steering, views
from shoal.checkpoints import away
from shoal.documents import shown
from shoal.home import ExperimentError, Folder
from shoal.plots import PICTURES
from shoal.plots.captions import CAPTIONS
from shoal.report import report as report_of
from shoal.result import Result
from shoal.runners import written
from shoal.show import tables
from shoal.web import answers
from shoal.web.endpoints import BadRequest, Endpoint, Parameter, many, thing
from shoal.web.followed import Home, Now, Unknown

EXPERIMENT = "/api/experiments/{id}"
READ_BYTES = 1 << 18  # of an output, at a time

BRIEF = thing(
    id="string", name="string?", state="string", created="string?", seconds="number?",
    population="integer?",
    best="number?", folder="string",
    trials=thing(finished="integer?", failed="integer?", total="integer?"),
)  # fmt: skip
STATUS = thing(
    id="string", name="string", state="string", reason="string", folder="string",
    population="integer", steps="integer?", workers="integer", step="integer", seconds="number",
    trials=thing(finished="integer", running="integer", failed="integer", total="integer?"),
    failures="string",
    checkpoints="string", health=many("string"), sentences=many("string"), hparams=many("string"),
    pausing="boolean", limits=thing(),
    controller={"type": ["object", "null"]},
    control={"type": ["object", "null"]}, best={"type": ["object", "null"]},
)  # fmt: skip
MEMBER = thing(
    member="integer", trial="integer?", state="string", step="integer?", metric="number?",
    best="number?", lag="integer", waits="string", spark=many("number"),
)  # fmt: skip
TRIAL = thing(
    id="integer", member="integer", step="integer", hparams="object", parent="integer?",
    state="string", metric="number?", checkpoint="string?", attempt="integer", started="string",
    ended="string?", error="string?", copied="integer?",
)  # fmt: skip
EXPLOIT = thing(
    trial="integer", step="integer", member="integer", before="number?", copied="number?",
    after="number?", gain="number?", failed="boolean", explored="string",
    donor=thing(trial="integer", member="integer", step="integer"),
)  # fmt: skip
DECISION = thing(
    member="integer", step="integer", trial="integer", what="string", because="string",
    parent="integer?", donor="integer?", rank="integer?", hparams="object", changes="object",
    cohort=many("object"), decided_so_today="boolean",
)  # fmt: skip
FIGURE = thing(data=many("object"), layout="object")
CHECKPOINTS = thing(
    root="string", keep="string", bytes="integer", by_member=many("object"),
    checkpoints=many(thing(
        member="integer", step="integer", trial="integer?", files="integer", bytes="integer",
        why="string",
    )),
)  # fmt: skip


def count(
    name: str, about: str, default: int | None = None, *, required: bool = False
) -> Parameter:
    """A parameter that is a number from 0 on."""
    return Parameter(
        name, "integer", about, default, low=0, high=2**53 - 1, required=required
    )  # fmt: skip


PAGE = Parameter("page", "integer", "Which page, from 0 on.", 0, low=0, high=10**9)
SIZE = Parameter("size", "integer", "How many on a page.", 50, low=1, high=1000)


def experiments(home: Home) -> Any:
    """All experiments, newest first, as `shoal list --json` gives them."""
    return home.briefs()


def figure(now: Now, name: str) -> Response:
    """A picture, as plotly draws it.

    Raises:
        Unknown: there is no such picture.
    """
    if name not in PICTURES:
        raise Unknown(f"there is no picture {name!r}; there are {', '.join(PICTURES)}")
    figure = PICTURES[name](now.history).update_layout(meta={"caption": CAPTIONS[name]})
    return Response(figure.to_json(), media_type="application/json")


def trials(now: Now, order: str, **asked: Any) -> Any:
    """A page of the trials."""
    return answers.trials(now, descending=order == "desc", **asked)


def best(now: Now) -> Any:
    """The best trial with its schedule, as `shoal best --json` gives it; null: there is none."""
    found = now.best_so_far
    return found and {**found.lineage[-1].json(), "schedule": found.schedule}


def lineage(now: Now) -> Any:
    """The best trial and its ancestors, root first."""
    return [row.json() for row in now.best_so_far.lineage] if now.best_so_far else []


def schedule(now: Now) -> Any:
    """The hyperparameters along the best trial's lineage."""
    return now.best_so_far.schedule if now.best_so_far else []


def output(
    now: Now, trial: int, stream: str, *, offset: int, tail: int | None, size: int
) -> Response:
    """What a trial has printed from a byte on, or near the end; a piece of it.

    `X-Offset` is where it begins, `X-Next-Offset` where to go on.

    Raises:
        Unknown: there is no such trial or stream.
    """
    if stream not in {"stdout", "stderr"}:
        raise Unknown(f"a trial has stdout and stderr, and no {stream!r}")
    file = answers.output(now, trial, stream)
    begin = offset if tail is None else max(0, written.size(file) - tail)
    data = written.read(file, begin, size)
    headers = {
        "x-offset": str(begin),
        "x-next-offset": str(begin + len(data)),
        "cache-control": "no-store",
    }
    return PlainTextResponse(data.decode("utf-8", "replace"), headers=headers)


def download_output(now: Now, trial: int, stream: str) -> Response:
    """All that a trial has printed, as a file.

    Raises:
        Unknown: there is no such trial or stream.
    """
    if stream not in {"stdout", "stderr"}:
        raise Unknown(f"a trial has stdout and stderr, and no {stream!r}")
    file = answers.output(now, trial, stream)
    return attached(pieces(file), f"{now.id}-{trial}-{stream}.txt", "text/plain")


def download_checkpoint(now: Now, member: int, step: int) -> Response:
    """The folder of a checkpoint, as a tar archive.

    Raises:
        Unknown: there is no such checkpoint.
    """
    folder = now.checkpoints / str(member) / str(step)
    if folder.is_symlink() or not folder.is_dir():
        raise Unknown(f"experiment {now.id} has no checkpoint of member {member}, step {step}")
    if away(folder) is not None:
        where = f"{now.config['checkpoints']}/{member}/{step}"
        raise Unknown(f"it is in {where} only, and is brought here at the end, if it is the best")
    name = f"{now.id}-{member}-{step}"
    return attached(archive(folder, name), f"{name}.tar", "application/x-tar")


def export_csv(now: Now) -> Response:
    """Every trial, as `shoal export` writes it."""
    text = tables.comma_separated(views.columns(now.export(), tables.names_of(now)))
    return attached(iter([text.encode()]), f"{now.id}.csv", "text/csv")


def export_json(now: Now) -> Response:
    """Every trial, as `shoal export` writes it."""
    text = dumps(views.strict(now.export()), allow_nan=False)
    return attached(iter([text.encode()]), f"{now.id}.json", "application/json")


def report(now: Now) -> Response:
    """What `shoal report` writes."""
    return attached(iter([report_of(now).encode()]), f"{now.id}.html", "text/html")


def pause(folder: Folder) -> Any:
    """Have no further trial begun.

    Raises:
        ExperimentError: nobody runs it, or whoever does cannot be told.
    """
    if not steering.pause(folder):
        raise idle(folder)
    return {"said": "It pauses once what runs has ended."}


def stop(folder: Folder, *, now: bool) -> Any:
    """Have it end, in order or at once.

    Raises:
        ExperimentError: nobody runs it, or whoever does cannot be told.
    """
    if not steering.stop(folder, now=now):
        raise idle(folder)
    return {"said": "It ends now." if now else "It ends once what runs has ended."}


def resume(folder: Folder, **limits: Any) -> Any:
    """Have it go on, where it is paused, or else in a process of its own.

    Raises:
        ConfigError: a limit is no good.
        ExperimentError: it cannot go on.
    """
    if steering.go_on(folder, limits):
        return {"said": "It goes on."}
    if folder.holder() is None and any(value is not None for value in limits.values()):
        steering.update(folder, limits)
    if spent := Result(folder).spent:
        return {"said": f"Nothing is left to do: {spent}. Change a limit to have it go further."}
    return {"said": f"It goes on: process {steering.start(folder)} runs it."}


def update(folder: Folder, **limits: Any) -> Any:
    """Change its limits.

    Raises:
        BadRequest: there is nothing to be changed.
        ConfigError: a limit is no good.
        ExperimentError: it cannot be told.
    """
    if all(value is None for value in limits.values()):
        raise BadRequest(f"nothing to change: expected one of {', '.join(limits)}")
    before = Result(folder).config
    after = steering.update(folder, limits)
    moves = [
        f"{name} {shown(before[name])} → {shown(getattr(after, name))}"
        for name in (limit.name for limit in LIMITS)
        if before[name] != getattr(after, name)
    ]
    at_most = before["population"]
    most = f"; at most {at_most} trials run at a time, one a member" * (after.workers > at_most)
    return {"said": f"Changed: {', '.join(moves) or 'nothing'}{most}."}


def idle(folder: Folder) -> ExperimentError:
    """That nobody runs it."""
    return ExperimentError(f"experiment {folder.id} is not running: {Result(folder).state}")


def attached(parts: Iterator[bytes], name: str, media: str) -> Response:
    """An answer that a browser keeps as a file."""
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(parts, media_type=media, headers=headers)


def pieces(file: Path) -> Iterator[bytes]:
    """What is in `file`, piece by piece; nothing, if it is not there."""
    offset = 0
    while data := written.read(file, offset, READ_BYTES):
        offset += len(data)
        yield data


LEFT_OUT = "LEFT-OUT.txt"  # in an archive: what of the folder is not in it


def archive(folder: Path, name: str) -> Iterator[bytes]:
    """`folder` as a tar archive, as it is read.

    A link that stays inside is a link; what leads elsewhere and what is no file is named in a file.
    """
    buffer, left_out = io.BytesIO(), list[str]()
    with tarfile.open(fileobj=buffer, mode="w|", bufsize=1 << 16) as tar:
        for path, folders, names in os.walk(folder):
            links = [inner for inner in folders if (Path(path) / inner).is_symlink()]
            for file in sorted(Path(path) / inner for inner in (*names, *links)):
                inside = str(file.relative_to(folder))
                if file.is_symlink() and not stays(file, folder):
                    left_out.append(f"{inside}: a link to {file.readlink()}, outside of it")
                elif not file.is_symlink() and not file.is_file():
                    left_out.append(f"{inside}: no file")
                else:
                    try:
                        tar.add(file, f"{name}/{inside}", recursive=False)
                    except OSError as error:  # it was deleted meanwhile, or is not to be read
                        left_out.append(f"{inside}: {error.strerror}")
                yield taken(buffer)
        if left_out:
            text = "\n".join(left_out).encode("utf-8", "replace") + b"\n"
            entry = tarfile.TarInfo(f"{name}/{LEFT_OUT}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    yield taken(buffer)


def stays(link: Path, folder: Path) -> bool:
    """Whether `link` is relative, and leads to something in `folder`."""
    return not link.readlink().is_absolute() and link.resolve().is_relative_to(folder.resolve())


def taken(buffer: io.BytesIO) -> bytes:
    """What was written to `buffer`, which is empty then."""
    data = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return data


LIMITS = (
    Parameter("steps", "integer", "Steps of each member, in all.", low=1, high=2**31),
    Parameter("max_trials", "integer", "How many trials are started, in all.", low=1, high=2**31),
    Parameter("max_duration", "string", "Seconds, or 10m and the like, in all."),
    Parameter("target", "number", "The metric at which to stop."),
    Parameter("workers", "integer", "How many trials run at a time.", low=1, high=2**31),
)
SAID = thing(said="string")

ACTS: tuple[Endpoint, ...] = (
    Endpoint(f"{EXPERIMENT}/pause", "no further trial begins", pause, SAID, body=()),
    Endpoint(
        f"{EXPERIMENT}/stop", "it ends once what runs has ended", stop, SAID,
        body=(Parameter("now", "boolean", "End what runs, too; it is run again later.", False),),
    ),
    Endpoint(
        f"{EXPERIMENT}/resume", "it goes on, under other limits if some are given", resume, SAID,
        body=LIMITS,
    ),
    Endpoint(f"{EXPERIMENT}/update", "it goes further, or not so far", update, SAID, body=LIMITS),
)  # fmt: skip

READS: tuple[Endpoint, ...] = (
    Endpoint("/api/experiments", "all experiments, newest first", experiments, many(BRIEF)),
    Endpoint(EXPERIMENT, "how it stands", answers.overview, STATUS),
    Endpoint(f"{EXPERIMENT}/members", "its members", answers.members, many(MEMBER)),
    Endpoint(
        f"{EXPERIMENT}/trials", "a page of its trials", trials,
        thing(total="integer", page="integer", size="integer", trials=many(TRIAL)),
        parameters=(
            Parameter("state", "string", "Only those that are so.", choices=tuple(answers.STATES)),
            count("member", "Only those of this member."),
            count("step", "Only those of this step."),
            Parameter("copied", "boolean", "Only those that copied another member, or did not."),
            Parameter("sort", "string", "By what.", "id", choices=answers.SORTS),
            Parameter("order", "string", "Which way.", "asc", choices=("asc", "desc")),
            PAGE, SIZE,
        ),
    ),
    Endpoint(f"{EXPERIMENT}/trials/{{trial:int}}", "a trial", answers.one, TRIAL, cached=False),
    Endpoint(
        f"{EXPERIMENT}/trials/{{trial:int}}/{{stream}}", "what it has printed", output,
        media="text/plain", cached=False,
        parameters=(
            count("offset", "The byte to begin with.", 0),
            count("tail", "Begin so many bytes before the end instead."),
            Parameter(
                "size", "integer", "How many bytes at most.", READ_BYTES, low=1, high=READ_BYTES
            ),
        ),
    ),
    Endpoint(
        f"{EXPERIMENT}/trials/{{trial:int}}/{{stream}}/file", "all that it has printed",
        download_output, media="text/plain", cached=False,
    ),
    Endpoint(f"{EXPERIMENT}/best", "its best trial", best, {"type": ["object", "null"]}),
    Endpoint(f"{EXPERIMENT}/schedule", "the schedule", schedule, many("object")),
    Endpoint(f"{EXPERIMENT}/lineage", "the best trial's ancestors", lineage, many("object")),
    Endpoint(
        f"{EXPERIMENT}/exploits", "a page of the copies, newest first", answers.exploits,
        thing(total="integer", page="integer", size="integer", exploits=many(EXPLOIT)),
        parameters=(PAGE, SIZE),
    ),
    Endpoint(
        f"{EXPERIMENT}/explain", "why a member was replaced, or was not", answers.explained,
        DECISION,
        parameters=(
            count("member", "Which member.", required=True),
            count("step", "As it began which step.", required=True),
        ),
    ),
    Endpoint(f"{EXPERIMENT}/plots/{{name}}", "a picture", figure, FIGURE),
    Endpoint(
        f"{EXPERIMENT}/log", "its log", answers.log,
        many(thing(seq="integer", at="number", level="string", text="string")),
        parameters=(count("after", "Only later lines.", 0),),
    ),
    Endpoint(
        f"{EXPERIMENT}/checkpoints", "its checkpoints, and why each is kept", answers.checkpoints,
        CHECKPOINTS, cached=False,
    ),
    Endpoint(
        f"{EXPERIMENT}/checkpoints/{{member:int}}/{{step:int}}", "the files of a checkpoint",
        download_checkpoint, media="application/x-tar", cached=False,
    ),
    Endpoint(f"{EXPERIMENT}/config", "its experiment file", answers.configuration, thing()),
    Endpoint(f"{EXPERIMENT}/export.csv", "every trial", export_csv, media="text/csv", cached=False),
    Endpoint(f"{EXPERIMENT}/export.json", "every trial", export_json, many("object"), cached=False),
    Endpoint(f"{EXPERIMENT}/report", "the report", report, media="text/html", cached=False),
)  # fmt: skip
