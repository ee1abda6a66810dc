"""The experiment file, in its native form: the only schema there is.

Other forms (NNI's) are translated into this one, so that a mistake is looked for in one place.
Parsed at this edge and frozen, so that everything behind it can trust the types. The notation of
spaces and strategies is in `notation`, the reading of YAML, JSON and TOML in `documents`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainValidator,
    ValidationError,
)

from shoal.core.exploit import Exploit, Truncation
from shoal.core.explore import Explore, Shift
from shoal.core.space import Space
from shoal.documents import ConfigError, Problem, read, shown, unknown, unwritable
from shoal.notation import (
    dump_exploit,
    dump_explore,
    dump_space,
    is_number,
    parse_exploit,
    parse_explore,
    parse_seconds,
    parse_space,
)

__all__ = ["Config", "ConfigError", "Problem", "absolute", "load", "parse", "read", "within"]

LARGEST_POPULATION = 1_000_000
LONGEST_NAME = 200  # characters
LONGEST_PATH, LONGEST_PART = 4000, 255  # bytes, as Linux has it with room for what goes below
GIVEN = ("NNI_", "SHOAL_")  # variables that begin so are shoal's
COMMANDS = ("command", "train", "trainable")
TRACKERS = ("tensorboard", "mlflow", "wandb")
URL = re.compile(r"(s3a?|gs|az|azure|adl|abfss?)://[^/\s?#]+(/[^\s?#]*)?")  # of an object store
CHECKPOINT_DIRS = ("load_checkpoint_dir", "save_checkpoint_dir")  # a trial gets them from shoal

# What pydantic calls a mistake, and what is expected instead. `{ge}` and the like are its words for
# the limit; the value that came is said by us.
EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "some text",
    "list_type": "a list",
    "literal_error": "{expected}",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:,} or less",
    "string_too_long": "at most {max_length} characters",
}


def _whole(value: object) -> object:
    """1e6 is a float in every file format, and a whole number all the same."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def absolute(value: object) -> Path:
    """The path that `value` is, `~` expanded.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, str | Path):
        raise ValueError(f"expected a path, got {shown(value)}")  # noqa: TRY004 (pydantic's way)
    try:
        path = Path(value).expanduser().absolute()
        raw = os.fsencode(path)
    except RuntimeError:  # ~nobody
        raise ValueError(f"expected a path, got {shown(str(value))}: no such user") from None
    except UnicodeEncodeError:
        raise ValueError(f"expected a path, got {shown(str(value))}") from None
    if b"\0" in raw:
        raise ValueError(f"expected a path, got {shown(str(value))}")
    if len(raw) > LONGEST_PATH or any(len(part) > LONGEST_PART for part in raw.split(b"/")):
        raise ValueError(f"expected a path, got {shown(str(value))}: it is too long for one")
    return path


def _checkpoints(value: object) -> Path | str:
    """The folder that `value` is, or the URL."""
    if isinstance(value, str) and "://" in value:
        if not URL.fullmatch(value):
            expected = "a path, or s3://, gs:// or az://, a bucket and a prefix"
            raise ValueError(f"expected {expected}, got {shown(value)}")
        return value.rstrip("/")
    return absolute(value)


def _train(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\w+(\.\w+)*:\w+", value):
        raise ValueError(f"expected module:function, got {shown(value)}")
    return value


def _trainable(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.]+:[\w.<>]+", value):
        raise ValueError(f"expected module:name, got {shown(value)}")
    return value


def _every(value: object) -> Literal["auto"] | int:
    value = _whole(value)
    if value == "auto":
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'expected "auto" or a number of steps, got {shown(value)}')
    return value


def _env(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping of names to text, got {shown(value)}")  # noqa: TRY004
    found, problems = {}, []
    for name, text in value.items():
        number = isinstance(text, int | float) and not isinstance(text, bool)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append(Problem("", f"expected the name of a variable, got {shown(name)}"))
        elif name.startswith(GIVEN):
            problems.append(Problem(name, "is a variable that shoal gives every trial"))
        elif not (number or isinstance(text, str)) or "\0" in str(text):
            problems.append(Problem(name, f"expected text, got {shown(text)}"))
        else:
            found[name] = str(text)
    if problems:
        raise ConfigError(problems)
    return found


def _initial(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError(f"expected a list of mappings of hyperparameters, got {shown(value)}")
    return [dict(one) for one in value]


def _begun(space: Space, settings: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Problem]]:
    """(`settings` as values of `space`, what is wrong with them)."""
    found: list[Any] = []
    problems = []
    for number, setting in enumerate(settings):
        found.append({})
        for name, value in setting.items():
            key, domain = f"initial[{number}].{name}", space.get(name)
            if domain is None:
                problems.append(Problem(key, unknown(name, space)))
                continue
            for form in (value, float(value)) if is_number(value) else (value,):
                if domain.contains(form):
                    found[-1][name] = form
                    break
            else:
                given = shown(dump_space(Space({name: domain}))[name])
                problems.append(Problem(key, f"expected a value of {given}, got {shown(value)}"))
    return found, problems


def _tracker(value: object) -> str:
    name = value.partition("=")[0] if isinstance(value, str) else None
    if name not in TRACKERS or not isinstance(value, str):
        known = ", ".join(TRACKERS)
        raise ValueError(f"expected one of {known}, or NAME=WHERE, got {shown(value)}")
    return value


def _different(indices: list[int]) -> list[int]:
    if len(set(indices)) < len(indices):
        raise ValueError(f"expected each index once, got {shown(indices)}")
    return indices


def _gpus_per_trial(value: object) -> float:
    if is_number(value) and (0 <= value < 1 or value == int(value) >= 1):
        return value
    raise ValueError(f"expected a whole number, or a fraction below 1, got {shown(value)}")


def _checked_space(value: object) -> Space:
    if isinstance(value, str | Path):
        return _space_in_file(absolute(value))
    space = value if isinstance(value, Space) else parse_space(value)
    if problems := _unusable(space):
        raise ConfigError(problems)
    return space


def _space_in_file(path: Path) -> Space:
    try:
        return _checked_space(read(path, path.name))
    except ConfigError as error:
        raise ConfigError([Problem(p.key, p.message, path.name) for p in error.problems]) from None


def _unusable(space: Space) -> list[Problem]:
    if not space:
        return [Problem("", "expected at least one hyperparameter")]
    return [
        Problem(name, "is the name of a folder that shoal gives every trial; choose another")
        for name in CHECKPOINT_DIRS
        if name in space
    ] + list(unwritable(list(space)))


Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[Whole, Field(ge=1)]
Natural = Annotated[Whole, Field(ge=0)]
AbsolutePath = Annotated[Path, PlainValidator(absolute)]
Seconds = Annotated[float, PlainValidator(parse_seconds)]
Text = Annotated[str, Field(min_length=1)]


class _Checked(BaseModel):
    """A model whose constructor reports every mistake at once, in our words.

    The constructor is inherited because type checkers would believe its signature if `Config` had
    it, and not the fields.
    """

    def __init__(self, **fields: Any) -> None:
        if problems := list(unwritable(fields)):  # and nothing else can be said of it safely
            raise ConfigError(problems)
        problems = self.crosswise(fields)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            problems += _translated(error, type(self).model_fields)
        else:
            problems += self.together()
        if problems:
            raise ConfigError(problems)

    def together(self) -> list[Problem]:
        """What is wrong between fields each of which is right; they may be put into form."""
        return []

    def crosswise(self, fields: Mapping[str, Any]) -> list[Problem]:
        """What is wrong between fields; asked for even where single ones are wrong as well."""
        return []


def _resources(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping of names to numbers, got {shown(value)}")  # noqa: TRY004
    problems = [
        Problem(str(name), f"expected a number above 0, got {shown(amount)}")
        for name, amount in value.items()
        if not (isinstance(name, str) and name and is_number(amount) and amount > 0)
    ]
    if problems:
        raise ConfigError(problems)
    return {name: float(amount) for name, amount in value.items()}


def _plainly(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping) or any(unwritable(value)):
        raise ValueError(f"expected a mapping that can be written to a file, got {shown(value)}")
    return dict(value)


class Ray(_Checked):
    """Trials run on a Ray cluster: `execution=shoal.Ray("auto")`, or `execution: {engine: ray}`.

    Attributes:
        engine: "ray".
        address: Of a cluster that runs: "auto", "HOST:PORT" or "ray://HOST:PORT"; None for
            $RAY_ADDRESS, or a new one on this machine.
        cpus_per_trial: How many CPUs each worker takes, as Ray counts them; a fraction is one.
        resources: What else each takes, by Ray's names.
        ship: Whether the folder in which trials run is copied to the nodes. By default it is, if
            `address` names a cluster and what is trained is in a file; where all nodes mount the
            folder, there is no need to.
        runtime_env: What Ray is to provide trials with, see its documentation.

    Raises:
        ConfigError: with every mistake there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    engine: Literal["ray"] = "ray"
    address: Text | None = None
    cpus_per_trial: Annotated[float, Field(ge=0)] = 1.0
    resources: Annotated[dict[str, float], PlainValidator(_resources)] = Field(default_factory=dict)
    ship: bool | None = None
    runtime_env: Annotated[dict[str, Any], PlainValidator(_plainly)] = Field(default_factory=dict)

    def __init__(self, address: str | None = None, **fields: Any) -> None:
        super().__init__(address=address, **fields)


def _execution(value: object) -> Ray | None:
    if value == "local":
        return None
    if value == "ray":
        return Ray()
    if isinstance(value, Mapping) and value.get("engine") in {"ray", "local"}:
        given = dict(value)
        if given["engine"] == "ray":
            return Ray(**given)
        if len(given) == 1:
            return None
    if isinstance(value, Ray) or value is None:
        return value
    raise ValueError(
        f'expected "local", "ray", or a mapping with one as engine, got {shown(value)}'
    )


def _at_a_time(given: dict[str, Any]) -> int:
    """How many trials run at the same time where nobody has said it."""
    return 1 if given.get("execution") is None else given.get("population", 1)


class Config(_Checked):
    """An experiment: what to train, what to tune, how, and for how long.

    As in a file, so in Python: `Config(train="digits:step", space={"lr": {"float": [0, 1]}})`, or
    `{"lr": Float(0, 1)}`, but paths are relative to the working directory here.
    `docs/experiment-file.md` has more of each.

    Attributes:
        name: What to call it; the name of its file's folder by default.
        command: The command line of one trial. This or `train`.
        train: The training function of one trial, `module:function`, each in a process of its own.
            This or `command`.
        trainable: What warm workers train, a trainable or a function, `module:name`. This or one of
            the two above.
        directory: Where trials run; the file's folder by default.
        space: What the hyperparameters may be; the path of a file that says so is taken, too.
        population: How many members are trained together.
        control: How many of them never copy, so that the run can say what copying has gained.
        initial: What the first members begin with, a mapping of hyperparameters each; what one
            leaves out, and the others', is drawn.
        steps: How many steps each member does; None for no end.
        workers: How many trials run at the same time; by default 1, and on a cluster as many as
            there are members.
        metric: Which entry of the final result is the score, where a trial reports a mapping.
        mode: Whether more of it is better ("max") or less ("min").
        synchronous: Whether all members end a step before any begins the next.
        seed: The same seed, the same decisions.
        exploit: Whose weights a member goes on with.
        explore: Which hyperparameters it tries after it has copied.
        checkpoints: The folder for checkpoints, or the URL of one in an object store; None for one
            inside the experiment.
        checkpoint_every: After how many steps the state of a trainable is saved; "auto" for as
            often as costs little. What is needed elsewhere and at the end is saved anyway.
        hold: Whether workers keep the states of their members in memory between steps; else each is
            saved after its step, and loaded before the next.
        keep: Which checkpoints stay: "live" (those that can still be needed), "all", or "lineage"
            (those and the best trial's ancestors).
        retries: How often a failed trial is tried again; None for once, and not at all where the
            same seed fails in the same way: NaN, a result that is no number, what did not take
            effect.
        timeout: Seconds after which a trial is ended and has failed; None for no limit.
        gpus_per_trial: GPUs of a trial; below 1 for sharing one, 0 for none to be seen, None for
            all to be seen.
        gpus: The indices of the GPUs to use; None for all.
        trials_per_gpu: How many trials may use a GPU at the same time.
        use_active_gpus: Whether GPUs that other programs are using may be used.
        preload: The modules to import once for all trials; None to find them in the script.
        warm: Whether Python trials start from a process that has them imported.
        max_trials: How many trials are started in all; None for no limit.
        max_duration: Seconds of running after which no trial is started; None for no limit.
        target: The metric at which to stop, as it is reported; None to go on.
        env: Variables for the environment of trials, set before anything is imported.
        execution: Where trials run: None for this machine, or a `Ray`.
        track: The trackers that are told of each step: "tensorboard", "mlflow" or "wandb"; "=" and
            where to may follow.
        home: Where experiments are kept; None for $SHOAL_HOME or its default.

    Raises:
        ConfigError: with every mistake there is.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )

    name: Annotated[str, Field(max_length=LONGEST_NAME)] = ""
    command: Text | None = None
    train: Annotated[str, PlainValidator(_train)] | None = None
    trainable: Annotated[str, PlainValidator(_trainable)] | None = None
    directory: AbsolutePath = Field(default_factory=Path.cwd)
    space: Annotated[Space, PlainValidator(_checked_space)]
    population: Annotated[Positive, Field(le=LARGEST_POPULATION)] = 10
    control: Natural = 0
    initial: Annotated[list[dict[str, Any]], PlainValidator(_initial)] = Field(default_factory=list)
    steps: Positive | None = None
    execution: Annotated[Ray | None, PlainValidator(_execution)] = None
    workers: Annotated[Positive, Field(le=LARGEST_POPULATION)] = Field(default_factory=_at_a_time)
    metric: Text = "default"
    mode: Literal["max", "min"] = "max"
    synchronous: bool = True
    seed: Whole = 0
    exploit: Annotated[Exploit, PlainValidator(parse_exploit)] = Truncation()
    explore: Annotated[Explore, PlainValidator(parse_explore)] = Shift()
    checkpoints: Annotated[Path | str, PlainValidator(_checkpoints)] | None = None
    checkpoint_every: Annotated[Literal["auto"] | int, PlainValidator(_every)] = "auto"
    hold: bool = True
    keep: Literal["live", "all", "lineage"] = "live"
    retries: Natural | None = None
    timeout: Seconds | None = None
    gpus_per_trial: Annotated[float, PlainValidator(_gpus_per_trial)] | None = None
    gpus: Annotated[list[Natural], AfterValidator(_different)] | None = None
    trials_per_gpu: Positive = 1
    use_active_gpus: bool = False
    preload: list[Text] | None = None
    warm: bool = True
    max_trials: Positive | None = None
    max_duration: Seconds | None = None
    target: FiniteFloat | None = None
    env: Annotated[dict[str, str], PlainValidator(_env)] = Field(default_factory=dict)
    track: list[Annotated[str, PlainValidator(_tracker)]] = Field(default_factory=list)
    home: AbsolutePath | None = None

    def dump(self) -> dict[str, Any]:
        """The native form of this, as plain values that JSON can carry; `restore` gives it back.

        A strategy of the user's own is dumped as its text, and has to be given to `restore` anew.
        """
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}
        return plain | {
            "space": dump_space(self.space),
            "exploit": dump_exploit(self.exploit),
            "explore": dump_explore(self.explore),
            "execution": None if self.execution is None else self.execution.model_dump(),
        }

    def crosswise(self, fields: Mapping[str, Any]) -> list[Problem]:
        commands = [name for name in COMMANDS if fields.get(name) is not None]
        problems = []
        if len(commands) != 1:
            got = " and ".join(commands) or "none of them"
            problems.append(Problem("", f"expected one of {', '.join(COMMANDS)}, got {got}"))
        size = fields.get("population", type(self).model_fields["population"].default)
        control, initial = fields.get("control", 0), fields.get("initial", ())
        if is_number(size) and isinstance(initial, list | tuple) and len(initial) > size:
            got = f"{len(initial)} settings"
            problems.append(Problem("initial", f"expected one a member, {shown(size)}, got {got}"))
        if is_number(size) and is_number(control) and control > size:
            most = f"at most the population, {shown(size)}"
            problems.append(Problem("control", f"expected {most}, got {shown(control)}"))
        return problems

    def together(self) -> list[Problem]:
        settings, problems = _begun(self.space, self.initial)
        self.initial[:] = settings
        return problems

    @classmethod
    def restore(cls, dumped: Mapping[str, Any]) -> "Config":
        """The configuration that `dump` gave `dumped` for.

        Raises:
            ConfigError: with every mistake there is.
        """
        return cls(**dumped)


# what may be changed of an experiment that has begun
LIMITS = ("steps", "max_trials", "max_duration", "target", "workers")


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """`config` with those of `changes` that are not None.

    `steps` and `max_trials` limit the same thing: whoever gives one means it and not the other.

    Raises:
        ConfigError: a change is no good.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    if not given:
        return config
    if ("steps" in given) != ("max_trials" in given):
        given = {"steps": None, "max_trials": None} | given
    fields = {name: getattr(config, name) for name in config.model_fields_set}
    return Config(**fields | given)  # a default may depend on what is given


def load(path: str | Path) -> Config:
    """The experiment in the file `path`, which is in the native form.

    Raises:
        ConfigError: with every mistake there is, the file named.
    """
    path = Path(path).expanduser()
    return parse(read(path), path.absolute().parent, str(path))


def parse(mapping: Mapping[str, Any], folder: Path, source: str | None = None) -> Config:
    """The experiment that `mapping` describes in the native form.

    Args:
        mapping: What is in the file.
        folder: The file's folder, to which its paths are relative.
        source: What errors call the file.

    Raises:
        ConfigError: with every mistake there is.
    """
    folder = folder.absolute()
    given: dict[str, Any] = {"name": folder.name, "directory": folder} | {
        key: value if value is None else within(folder, value) if key in _PATHS else value
        for key, value in mapping.items()
    }
    try:
        return Config(**given)
    except ConfigError as error:
        raise ConfigError(error.problems, source) from None


_PATHS = {"directory", "space", "checkpoints", "home"}


def within(folder: Path, value: Any) -> Any:
    """`value` as a path in `folder` where it is relative; what is no text is left to be refused."""
    if not isinstance(value, str) or value.startswith("~") or "://" in value:
        return value
    return str(folder / value)


def _translated(error: ValidationError, known: Mapping[str, object]) -> list[Problem]:
    """Pydantic's findings as ours."""
    problems: list[Problem] = []
    for found in error.errors(include_url=False):
        if found["type"] == "default_factory_not_called":
            continue  # something that it depends on is wrong, which is told
        key = _key(found["loc"])
        context = found.get("ctx", {})
        cause = context.get("error")
        if isinstance(cause, ConfigError):  # a domain of its own, with several findings
            problems += [
                p if p.source else Problem(_join(key, p.key), p.message) for p in cause.problems
            ]
        elif cause is not None:
            problems.append(Problem(key, str(cause)))
        elif found["type"] == "extra_forbidden":
            problems.append(Problem("", unknown(key, known)))
        elif found["type"] == "missing":
            problems.append(Problem(key, "is missing"))
        else:
            expected = EXPECTED.get(found["type"], "something else").format(**context)
            problems.append(Problem(key, f"expected {expected}, got {shown(found['input'])}"))
    return problems


def _key(loc: tuple[int | str, ...]) -> str:
    key = ""
    for part in loc:
        key = f"{key}[{part}]" if isinstance(part, int) else _join(key, part)
    return key


def _join(outer: str, inner: str) -> str:
    return f"{outer}.{inner}" if outer and inner else outer or inner
