"""NNI's experiment files, version 1 and 2, as our `Config`.

Tables say where each of NNI's keys goes; `Translation` moves the values into the native form, which
then checks them, and remembers which key each came from, so that a complaint names the user's key.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path, PurePosixPath
from typing import Any

from shoal import config
from shoal.compat.nni import space as nni_space
from shoal.config import Config, ConfigError, Problem, absolute, read, within
from shoal.core.space import Fixed, Space
from shoal.documents import shown, unknown
from shoal.notation import SHIFT, TRUNCATION, attempt


def as_it_is(value: Any) -> Any:
    """The value; the native form is what checks it."""
    return value


def number(value: Any) -> Any:
    """The number that text such as '10' is, as NNI takes it."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+", value.strip()):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value):
        return float(value)
    return value


def text(value: Any) -> Any:
    """The text that an unquoted number was meant to be."""
    return str(value) if isinstance(value, int | float) else value


def indices(value: Any) -> Any:
    """The list that `gpuIndices` means: [0, 1], "0,1" or a single index."""
    if isinstance(value, str):
        value = value.split(",")
    return [number(item) for item in value] if isinstance(value, list) else [value]


def seconds(value: Any) -> Any:
    """The whole seconds that text such as "2H" or "1e3s" is to NNI, which rounds them up."""
    if isinstance(value, str) and (unit := value[-1:].lower()) in UNITS:
        try:
            exact = float(value[:-1]) * UNITS[unit]
        except ValueError:
            return value
        return ceil(exact) if 0 < exact < inf else value
    return value


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def hpo(value: Any) -> Any:
    """Nothing, for an `experimentType` that shoal runs."""
    if value != "hpo":
        raise ValueError(f"expected hpo, got {shown(value)}: shoal searches no architectures")


def mode(value: Any) -> Any:
    """The native word for `optimize_mode`."""
    words = {"maximize": "max", "minimize": "min"}
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"expected maximize or minimize, got {shown(value)}")
    return words[value]


@dataclass(frozen=True, slots=True)
class To:
    """This key's value goes to `field` of the native form, through `convert`."""

    field: str
    convert: Callable[[Any], Any] = as_it_is


@dataclass(frozen=True, slots=True)
class Checked:
    """This key's value has to pass `check`, and means nothing more."""

    check: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Ignored:
    """This key has no effect, and a warning says so."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """This key cannot be honoured."""

    instead: str


Rule = To | Checked | Ignored | Refused | None  # None: read by code below
Rules = Mapping[str, Rule]

LOGGED = Ignored("`shoal log` has everything")
HERE = Ignored("trials run on this machine")
BOTH: Rules = {
    "experimentName": To("name", text),
    "trialConcurrency": To("workers", number),
    "maxTrialDuration": To("timeout", seconds),
    "useAnnotation": Refused("shoal reads no annotations: move them into a search space file"),
    "debug": LOGGED,
    "logLevel": LOGGED,
    "nniManagerIp": HERE,
    "sharedStorage": None,
    "tuner": None,
    "assessor": Refused("PBT itself moves away from bad trials: remove the assessor"),
}
NO_ADVISOR = "shoal runs PBT only: remove the advisor and set {} to PBTTuner"
# What may stand at the top of a version 2 file or, which then counts, in its trainingService.
TRIAL_V2: Rules = {
    "trialCommand": To("command"),
    "trialCodeDirectory": To("directory"),
    "trialGpuNumber": To("gpus_per_trial", number),
    "nniManagerIp": HERE,
    "debug": LOGGED,
}
V2: Rules = {
    **BOTH,
    **TRIAL_V2,
    "experimentType": Checked(hpo),
    "advisor": Refused(NO_ADVISOR.format("tuner.name")),
    "searchSpaceFile": None,
    "searchSpace": None,
    "maxExperimentDuration": To("max_duration", seconds),
    "maxTrialNumber": To("max_trials", number),
    "experimentWorkingDirectory": To("home"),
    "tunerGpuIndices": Ignored("the tuner uses no GPU"),
    "trainingService": None,
}
ELSEWHERE = Ignored("it is for another platform")
V1: Rules = {
    **BOTH,
    "advisor": Refused(NO_ADVISOR.format("tuner.builtinTunerName")),
    "searchSpacePath": None,
    "maxExecDuration": To("max_duration", seconds),
    "maxTrialNum": To("max_trials", number),
    "logDir": To("home"),
    "trainingServicePlatform": None,
    "trial": None,
    "localConfig": None,
    "multiPhase": Refused("trials have one phase: remove it"),
    "authorName": Ignored("nothing uses it"),
    "description": Ignored("nothing uses it"),
    "multiThread": Ignored("nothing uses it"),
    "versionCheck": Ignored("no NNI is installed for a trial"),
    "logCollection": Ignored("logs are written in place"),
    "nasMode": Ignored("nothing uses it"),
    "machineList": ELSEWHERE,
    "remoteConfig": ELSEWHERE,
    "paiConfig": ELSEWHERE,
    "kubeflowConfig": ELSEWHERE,
    "frameworkcontrollerConfig": ELSEWHERE,
    "amlConfig": ELSEWHERE,
    "dlcConfig": ELSEWHERE,
    "dltsConfig": ELSEWHERE,
    "hybridConfig": ELSEWHERE,
    "adlConfig": ELSEWHERE,
    "paiYarnConfig": ELSEWHERE,
}
TRIAL_V1: Rules = {
    "command": To("command"),
    "codeDir": To("directory"),
    "gpuNum": To("gpus_per_trial", number),
    "nasMode": Ignored("nothing uses it"),
    **dict.fromkeys(
        (
            "cpuNum",
            "memoryMB",
            "shmMB",
            "image",
            "virtualCluster",
            "authFile",
            "portList",
            "privateRegistryAuthPath",
            "nniManagerNFSMountPath",
            "containerNFSMountPath",
            "paiStorageConfigName",
            "paiStoragePlugin",
            "paiConfigPath",
            "checkpoint",
            "adaptive",
            "codeDirPath",
            "dataDir",
            "outputDir",
            "ps",
            "worker",
            "master",
            "taskRoles",
        ),
        ELSEWHERE,
    ),
}
GPUS: Rules = {
    "useActiveGpu": To("use_active_gpus"),
    "gpuIndices": To("gpus", indices),
}
LOCAL_V1: Rules = {**GPUS, "maxTrialNumPerGpu": To("trials_per_gpu", number)}
LOCAL_V2: Rules = {
    **GPUS,
    **TRIAL_V2,
    "platform": None,
    "reuseMode": HERE,
    "maxTrialNumberPerGpu": To("trials_per_gpu", number),
}
TUNER: Rules = {
    "name": None,
    "builtinTunerName": None,
    "className": None,
    "classFileName": None,
    "codeDirectory": None,
    "codeDir": None,
    "classArgs": None,
    "gpuIndices": Ignored("the tuner uses no GPU"),
    "includeIntermediateResults": Ignored("PBT uses final results only"),
}
CLASS_ARGS: Rules = {
    "optimize_mode": To("mode", mode),
    "all_checkpoint_dir": To("checkpoints"),
    "population_size": To("population", number),
    "factor": To(f"explore.{SHIFT}", number),
    "factors": None,
    "resample_probability": To("explore.resample", number),
    "fraction": To(f"exploit.{TRUNCATION}", number),
    "seed": To("seed", number),
}

PBT = {"pbt", "pbttuner", "nni.algorithms.hpo.pbttuner.pbttuner"}  # as `plain` has them

# Stand in for what is missing or wrong and was complained of, so that the rest can be checked.
COMMAND, SPACE = "-", Space({"-": Fixed(0)})


def plain(key: str) -> str:
    """`key` as NNI compares keys: without case and underscores."""
    return key.lower().replace("_", "")


NNI_KEYS = {plain(key) for key in (*V1, *V2)}


def is_nni(mapping: Mapping[str, Any]) -> bool:
    """Whether a file that holds `mapping` is rather NNI's than native."""
    theirs = sum(plain(key) in NNI_KEYS for key in mapping)
    return theirs > sum(key in Config.model_fields for key in mapping)


def parse(
    mapping: Mapping[str, Any], folder: Path, source: str | None = None, *, cluster: bool = False
) -> tuple[Config, list[str]]:
    """The experiment that `mapping` describes in NNI's form, and what to warn its user of.

    Args:
        mapping: What is in the file.
        folder: The file's folder, to which its paths are relative.
        source: What errors call the file.
        cluster: Whether trials run on a cluster, whatever platform it was written for.

    Raises:
        ConfigError: with every mistake there is, by the keys of the user's file.
    """
    work = Translation(folder, cluster=cluster)
    if any(plain(key) == "trainingserviceplatform" for key in mapping):
        _version_1(work, mapping)
    else:
        _version_2(work, mapping)
    return work.config(source), work.warnings


@dataclass(frozen=True, slots=True)
class Given:
    """A value of the user's file with its key, in the user's spelling."""

    key: str
    value: Any


class Translation:
    """The native form of an NNI file, in the making."""

    def __init__(self, folder: Path, *, cluster: bool) -> None:
        self.folder, self.cluster = folder, cluster
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self._fields: dict[str, Any] = {"exploit": {TRUNCATION: 0.2}, "explore": {SHIFT: 0.2}}
        self._origins: dict[str, tuple[str, str | None]] = {}  # native key: key, file

    def take(self, raw: Any, path: str, rules: Rules) -> dict[str, Given] | None:
        """What `raw` has set, by NNI's spelling of its keys, after the rules have been followed.

        None after a complaint that it is no mapping.
        """
        if not isinstance(raw, Mapping):
            self.problem(path, f"expected a mapping, got {shown(raw)}")
            return None
        names = {plain(name): name for name in rules}
        found: dict[str, Given] = {}
        for key, value in raw.items():
            name = names.get(plain(str(key)))
            given = Given(f"{path}.{key}" if path else str(key), value)
            if name is None:
                self.problem(path, unknown(str(key), rules))
            elif name in found:
                self.problem(given.key, f"is the same key as {found[name].key}")
            elif value is not None:
                found[name] = given
                self._follow(rules[name], given)
        return found

    def put(self, field: str, value: Any, key: str, source: str | None = None) -> None:
        """Set a `field` of the native form to the value of the user's `key`."""
        self._origins[field] = key, source
        outer, _, inner = field.partition(".")
        if inner:
            self._fields[outer][inner] = value
        else:
            self._fields[outer] = value

    def has(self, field: str) -> bool:
        """Whether a `field` of the native form is set."""
        return field in self._fields

    def field(self, field: str) -> Any:
        """What a `field` of the native form is set to."""
        return self._fields[field]

    def problem(self, key: str, message: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(key, message))

    def require(self, found: Mapping[str, Given] | None, *names: str) -> None:
        """Note each of `names`, keys with their path, that is not in what `take` gave."""
        for name in names:
            if found is not None and name.rpartition(".")[2] not in found:
                self.problem(name, "is missing")

    def config(self, source: str | None) -> Config:
        """The experiment.

        Raises:
            ConfigError: with everything noted and everything that the native form complains of.
        """
        trials, size = self._fields.get("max_trials"), self._fields.get("population", 10)
        if isinstance(trials, int) and isinstance(size, int) and size > 0 and trials % size == 0:
            # otherwise the last generation is begun and not ended, as with NNI
            self._fields["steps"] = trials // size or None
        try:
            made = config.parse({"command": COMMAND, "space": SPACE} | self._fields, self.folder)
        except ConfigError as error:
            self.problems += [self._renamed(problem) for problem in error.problems]
        if self.problems:
            raise ConfigError(self.problems, source)
        return made

    def _follow(self, rule: Rule, given: Given) -> None:
        match rule:
            case To(field, convert):
                try:
                    self.put(field, convert(given.value), given.key)
                except ValueError as error:
                    self.problem(given.key, str(error))
            case Checked(check):
                attempt(lambda: check(given.value), given.key, self.problems)
            case Ignored(why) if given.value is not False:
                self.warnings.append(f"{given.key} has no effect: {why}")
            case Refused(instead) if given.value is not False:
                self.problem(given.key, instead)

    def _renamed(self, problem: Problem) -> Problem:
        """A complaint about a native key, as one about the key that it came from."""
        for field in sorted(self._origins, key=len, reverse=True):
            rest = problem.key.removeprefix(field)
            if problem.key.startswith(field) and rest[:1] in {"", ".", "["}:
                key, source = self._origins[field]
                return Problem((key + rest).lstrip("."), problem.message, source)
        return problem


def _version_2(work: Translation, mapping: Mapping[str, Any]) -> None:
    top = work.take(mapping, "", V2) or {}
    work.require(top, "trialConcurrency")
    _search_space(work, top)
    _tuner(work, top, "name")
    service = top.get("trainingService", Given("trainingService", {"platform": "local"}))
    raw, key = service.value, service.key
    if isinstance(raw, list) and len(raw) == 1:
        raw, key = raw[0], f"{key}[0]"
    if isinstance(raw, list) and work.cluster:
        work.warnings.append(f"{key}: the first counts, and its machines are the cluster's")
        raw, key = raw[0] if raw else {}, f"{key}[0]"
    if isinstance(raw, list):
        work.problem(key, "shoal runs on this machine only: keep the one with platform: local")
        return
    platforms = [raw[k] for k in raw if plain(str(k)) == "platform"] if _is_map(raw) else []
    if platforms and platforms[0] != "local":
        if not work.cluster:
            _refuse_platform(work, f"{key}.platform", platforms[0], raw)
            return
        raw = _for_trials(work, raw, key)
        local = work.take(raw, key, TRIAL_V2)
    else:
        local = work.take(raw, key, LOCAL_V2)
        work.require(local, f"{key}.platform")
    _shared_storage(work, top)
    if local is not None:
        work.require({**top, **local}, "trialCommand")
        for name in TRIAL_V2.keys() & top.keys() & local.keys():
            if top[name].value != local[name].value:
                work.warnings.append(f"{top[name].key} has no effect: {local[name].key} counts")


def _version_1(work: Translation, mapping: Mapping[str, Any]) -> None:
    top = work.take(mapping, "", V1) or {}
    work.require(top, "trial", "trialConcurrency", "trainingServicePlatform")
    _search_space(work, top)
    _tuner(work, top, "builtinTunerName")
    platform = top.get("trainingServicePlatform")
    if platform is not None and platform.value != "local" and not work.cluster:
        _refuse_platform(work, platform.key, platform.value, mapping)
        return
    _shared_storage(work, top)
    if trial := top.get("trial"):
        work.require(work.take(trial.value, trial.key, TRIAL_V1), f"{trial.key}.command")
    if local := top.get("localConfig"):
        work.take(local.value, local.key, LOCAL_V1)


def _refuse_platform(work: Translation, key: str, platform: Any, around: Any) -> None:
    """Say how to run on other machines what was written for `platform`, with what is around it."""
    lists = [around[k] for k in around if plain(str(k)) == "machinelist"]
    machines = lists[0] if lists and isinstance(lists[0], list) else []
    hosts = [one[k] for one in machines if _is_map(one) for k in one if plain(str(k)) in HOSTS]
    named = f"the first of {', '.join(map(str, hosts))}" if hosts else "one machine"
    work.problem(
        key,
        f"shoal runs on this machine, got {shown(platform)}; set it to local. On several machines: "
        f"`ray start --head` on {named}, on the others, which need its token, `RAY_AUTH_MODE=token "
        "ray start --address=THE_FIRST:6379`, and with this file as it is `shoal run FILE --on ray "
        "--address auto` (docs/cluster.md)",
    )


def _for_trials(work: Translation, service: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What of a training service of NNI's counts on a cluster, too."""
    known = {plain(name) for name in TRIAL_V2}
    kept = {k: v for k, v in service.items() if plain(str(k)) in known}
    rest = ", ".join(str(k) for k in service if k not in kept)
    work.warnings.append(f"{key}: {rest}: no effect, as trials run on the Ray cluster")
    return kept


def _shared_storage(work: Translation, top: Mapping[str, Given]) -> None:
    """Have checkpoints where NNI's shared storage is, on a cluster."""
    given = top.get("sharedStorage")
    if given is None:
        return
    if not work.cluster:
        work.warnings.append(f"{given.key} has no effect: trials run on this machine")
        return
    storage = work.take(given.value, given.key, STORAGE)
    if storage is None:
        return
    mount = storage.get("remoteMountPoint") or storage.get("localMountPoint")
    name = top["experimentName"].value if "experimentName" in top else work.folder.name
    how = storage.get("localMounted")
    if "containerName" in storage and (how is None or plain(str(how.value)) != "usermount"):
        _container(work, given.key, storage, mount.value if mount else None, name)
        return
    if mount is None:
        work.problem(f"{given.key}.remoteMountPoint", "is missing")
        return
    if not work.has("checkpoints"):
        work.put("checkpoints", f"{mount.value}/{name}/checkpoints", mount.key)
    work.warnings.append(
        f"{given.key}: shoal mounts nothing: let {mount.value} be mounted on every node, and here"
    )


def _container(
    work: Translation, key: str, storage: Mapping[str, Given], mount: Any, name: str
) -> None:
    """Have checkpoints in the container that NNI would mount at `mount`."""
    container = storage["containerName"]
    below = f"{name}/checkpoints"
    if work.has("checkpoints"):
        named = PurePosixPath(str(work.field("checkpoints")))
        if mount is None or not named.is_relative_to(str(mount)):
            return
        below = named.relative_to(str(mount)).as_posix()
    account = storage.get("storageAccountName")
    work.put("checkpoints", f"az://{container.value}/{below}", container.key)
    work.warnings.append(
        f"{key}: shoal mounts nothing: checkpoints go to az://{container.value}/{below}. Let "
        f"AZURE_STORAGE_ACCOUNT_NAME{f'={account.value}' if account else ''} and "
        "AZURE_STORAGE_ACCOUNT_KEY be set, here and on every node"
    )


HOSTS = {"host", "ip"}
STORAGE: Rules = dict.fromkeys(
    (
        "storageType", "localMountPoint", "remoteMountPoint", "localMounted", "nfsServer",
        "exportedDirectory", "storageAccountName", "storageAccountKey", "resourceGroupName",
        "containerName",
    )
)  # fmt: skip


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _search_space(work: Translation, top: Mapping[str, Given]) -> None:
    file = top.get("searchSpaceFile") or top.get("searchSpacePath")
    inline = top.get("searchSpace")
    if file is not None:
        _space_file(work, file)
        if inline is not None:  # as in what NNI itself writes
            work.warnings.append(f"{inline.key} has no effect: {file.key} is read")
    elif inline is not None:
        _put_space(work, inline.value, inline.key, None)
    else:
        what = "searchSpacePath" if "trainingServicePlatform" in top else "searchSpaceFile"
        work.problem(what, "is missing")


def _space_file(work: Translation, given: Given) -> None:
    path = attempt(lambda: absolute(within(work.folder, given.value)), given.key, work.problems)
    if path is None:
        return
    try:
        raw = read(path, given.value)
    except ConfigError as error:
        work.problems += [Problem(p.key, p.message, given.value) for p in error.problems]
    else:
        _put_space(work, raw, "", given.value)


def _put_space(work: Translation, raw: Any, key: str, source: str | None) -> None:
    try:
        work.put("space", nni_space.parse(raw), key, source)
    except ConfigError as error:
        for p in error.problems:
            work.problems.append(Problem(f"{key}.{p.key}".strip("."), p.message, source))


def _tuner(work: Translation, top: Mapping[str, Given], key: str) -> None:
    """Read the tuner, whose name this version of the file calls `key`."""
    if "tuner" not in top:
        if "advisor" not in top:  # which has been complained of
            work.problem("tuner", "is missing")
        return
    path = top["tuner"].key
    tuner = work.take(top["tuner"].value, path, TUNER)
    if tuner is None:
        return
    if own := [tuner[k] for k in ("classFileName", "codeDirectory", "codeDir") if k in tuner]:
        work.problem(own[0].key, f"{ONLY_PBT}, no tuner of your own; set {path}.{key} to PBTTuner")
        return
    names = [tuner[k] for k in ("name", "builtinTunerName", "className") if k in tuner]
    if not names:
        work.problem(f"{path}.{key}", "is missing; set it to PBTTuner")
        return
    if strange := [given for given in names if plain(str(given.value)) not in PBT]:
        given = strange[0]
        work.problem(given.key, f"{ONLY_PBT}, got {shown(given.value)}; set it to PBTTuner")
        return
    if args := tuner.get("classArgs"):
        _class_args(work, args)


ONLY_PBT = "shoal runs population based training only"


def _class_args(work: Translation, args: Given) -> None:
    given = work.take(args.value, args.key, CLASS_ARGS)
    if given is None or "factors" not in given:
        return
    factors = given["factors"]
    if "factor" in given:
        work.problem(factors.key, f"is another name of {given['factor'].key}: keep that")
        return
    work.put(f"explore.{SHIFT}", number(factors.value), factors.key)
    work.warnings.append(f"{factors.key} is read as factor, which is what NNI calls it by now")
