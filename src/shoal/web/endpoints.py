"""Endpoints: what is asked, how it is checked, and what an OpenAPI document says of it."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from starlette.requests import Request

from shoal.web.safety import GUARD

Kind = Literal["integer", "number", "boolean", "string"]
Schema: TypeAlias = dict[str, Any]
LONGEST = 1 << 16  # bytes of a body
ABOUT = "What GET /api/guard answers: a page of another site cannot know it."


class BadRequest(Exception):  # noqa: N818 (an answer, not a mishap)
    """What was asked for cannot be understood; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that may be said in the query, or in the body.

    Args:
        name: what it is called.
        kind: what it is.
        about: what it does.
        default: what it is where nothing is said; None: nothing.
        choices: what it may be, where that is little.
        low: the smallest it may be.
        high: the largest.
        required: whether something has to be said.
    """

    name: str
    kind: Kind
    about: str
    default: Any = None
    choices: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    required: bool = False

    def read(self, text: str | None) -> Any:
        """The value of `text`, which is from a query.

        Raises:
            BadRequest: it has none.
        """
        if text is None:
            if self.required:
                raise BadRequest(f"{self.name} is missing: expected {self.expected}")
            return self.default
        try:
            value = READ[self.kind](text)
        except (ValueError, KeyError):
            raise self._refused(text) from None
        return self.checked(value)

    def checked(self, value: Any) -> Any:
        """`value`, if it may be so.

        Raises:
            BadRequest: it may not.
        """
        types: Mapping[Kind, Any] = {
            "integer": int, "number": int | float, "boolean": bool, "string": str,
        }  # fmt: skip
        if not isinstance(value, types[self.kind]) or (
            isinstance(value, bool) and self.kind != "boolean"
        ):
            raise self._refused(value)
        if self.choices and value not in self.choices:
            raise self._refused(value)
        if isinstance(value, int | float) and not (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
        ):
            raise self._refused(value)
        return value

    def _refused(self, value: Any) -> BadRequest:
        return BadRequest(f"{self.name}: expected {self.expected}, got {str(value)[:80]!r}")

    @property
    def expected(self) -> str:
        """What it should be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = {
            "integer": "a whole number", "number": "a number", "boolean": "true or false",
            "string": "text",
        }  # fmt: skip
        ends = [f"{self.low:g} or more"] if self.low is not None else []
        ends += [f"{self.high:g} or less"] if self.high is not None else []
        return ", ".join([words[self.kind], *ends])

    @property
    def schema(self) -> Schema:
        """What JSON Schema says of it."""
        found: Schema = {"type": self.kind}
        if self.choices:
            found["enum"] = list(self.choices)
        if self.default is not None:
            found["default"] = self.default
        if self.low is not None:
            found["minimum"] = self.low
        if self.high is not None:
            found["maximum"] = self.high
        return found


READ: Mapping[Kind, Callable[[str], Any]] = {
    "integer": lambda text: int(text) if text.lstrip("-").isascii() else int("?"),
    "number": float,
    "boolean": lambda text: {"true": True, "false": False}[text],
    "string": str,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something that can be asked for.

    Args:
        path: where; what is in braces is given to `answer`.
        about: what comes back.
        answer: makes it, from the experiments, what is in the path and the parameters.
        schema: what JSON Schema says of what comes back; None: no JSON.
        media: of what kind it is.
        parameters: in the query.
        cached: whether the same is answered until something new happens.
        body: what has to be, or may be, in the JSON of a request that makes something happen; None:
            this makes nothing happen.
    """

    path: str
    about: str
    answer: Callable[..., Any]
    schema: Schema | None = None
    media: str = "application/json"
    parameters: Sequence[Parameter] = ()
    cached: bool = True
    body: Sequence[Parameter] | None = None

    @property
    def method(self) -> str:
        """How it is asked for."""
        return "GET" if self.body is None else "POST"

    @property
    def names(self) -> list[str]:
        """What is in braces in the path, without its kind."""
        parts = [part for part in self.path.split("/") if part.startswith("{")]
        return [part.strip("{}").partition(":")[0] for part in parts]

    def query(self, request: Request) -> dict[str, Any]:
        """The parameters that `request` gives.

        Raises:
            BadRequest: one of them is wrong.
        """
        given = request.query_params
        return {p.name: p.read(given.get(p.name)) for p in self.parameters}

    def inside(self, body: bytes) -> dict[str, Any]:
        """What `body` says.

        Raises:
            BadRequest: it cannot be read, or something in it is wrong.
        """
        try:
            said = json.loads(body or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"expected JSON: {error}") from None
        if not isinstance(said, dict):
            raise BadRequest(f"expected an object, got {str(said)[:80]}")
        parameters = {parameter.name: parameter for parameter in self.body or ()}
        if unknown := said.keys() - parameters.keys():
            known = ", ".join(parameters) or "none"
            raise BadRequest(f"unknown: {min(unknown)[:80]!r}; there is {known}")
        return {
            name: parameter.checked(said[name]) if name in said else parameter.default
            for name, parameter in parameters.items()
        }


async def body_of(request: Request) -> bytes:
    """The body of `request`, which may not be long.

    Raises:
        BadRequest: it is.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST:
            raise BadRequest(f"the body is longer than {LONGEST} bytes")
    return body


def document(endpoints: Sequence[Endpoint], version: str) -> Schema:
    """The OpenAPI document of `endpoints`."""
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        path = "/".join(
            f"{{{part.strip('{}').partition(':')[0]}}}" if part.startswith("{") else part
            for part in endpoint.path.split("/")
        )
        paths.setdefault(path, {})[endpoint.method.lower()] = operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "shoal",
            "version": version,
            "description": "Experiments of population based training.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "guard": {"type": "apiKey", "in": "header", "name": GUARD, "description": ABOUT},
            },
            "schemas": {"Error": ERROR},
        },
        "security": [{}, {"token": []}],
    }


ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


def operation(endpoint: Endpoint) -> Schema:
    """What an OpenAPI document says of one endpoint."""
    wrong = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    inside = {endpoint.media: {"schema": endpoint.schema or {"type": "string"}}}
    answers: dict[str, Any] = {"200": {"description": endpoint.about, "content": inside}}
    codes = {400: "a parameter is wrong", 401: "the token is missing or wrong"}
    codes[403] = "it comes from another site"
    if endpoint.names:
        codes[404] = "there is no such thing"
    codes[409] = "it cannot be had as it is now"
    answers |= {str(code): {"description": codes[code], "content": wrong} for code in sorted(codes)}
    if endpoint.cached and endpoint.body is None:
        answers["304"] = {"description": "nothing has changed"}
    found: Schema = {
        "summary": endpoint.about,
        "operationId": f"{endpoint.method.lower()}_{endpoint.answer.__name__}",
        "responses": answers,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": path_schema(endpoint, name)}
            for name in endpoint.names
        ],
    }
    found["parameters"] += [
        {
            "name": p.name, "in": "query", "required": p.required, "schema": p.schema,
            "description": p.about,
        }
        for p in endpoint.parameters
    ]  # fmt: skip
    if endpoint.body is not None:
        fields = {p.name: p.schema | {"description": p.about} for p in endpoint.body}
        schema = {"type": "object", "properties": fields, "additionalProperties": False}
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        found["security"] = [{"guard": []}, {"token": []}]
    return found


def path_schema(endpoint: Endpoint, name: str) -> Schema:
    """What JSON Schema says of what is in braces in a path."""
    if f"{{{name}:int}}" in endpoint.path:
        return {"type": "integer", "minimum": 0}
    return {"type": "string"}


# ---------------------------------------------------------------------- schemas, in few words


def thing(**properties: Schema | str) -> Schema:
    """An object with at least these."""
    found = {name: typed(schema) for name, schema in properties.items()}
    return {"type": "object", "required": list(found), "properties": found}


def many(schema: Schema | str) -> Schema:
    """A list."""
    return {"type": "array", "items": typed(schema)}


def typed(schema: Schema | str) -> Schema:
    """A schema, or the one that a word stands for: `number?` is a number or null."""
    if not isinstance(schema, str):
        return schema
    if schema == "any":
        return {}
    kind = schema.removesuffix("?")
    return {"type": [kind, "null"] if kind != schema else kind}
