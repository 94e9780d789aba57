"""Name → constructor, for models, data sets, objectives and simulators.

A constructor's keyword-only parameters are its settings: their annotations and defaults become a
pydantic model that refuses unknown keys, so that a new class needs a decorator and nothing else.
Third parties register through entry points of the registry's group.
"""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, create_model

Constructor = TypeVar("Constructor", bound=Callable[..., Any])


class RegistryError(ValueError):
    """A name cannot be registered, or a plug-in cannot be loaded."""


class UnknownNameError(RegistryError):
    """No such name; the text lists the valid ones and the closest match."""


class Registry:
    """Constructors of one kind, by name.

    Every keyword-only parameter of a constructor needs a default, unless `required` allows
    parameters without (a data set's path).
    """

    def __init__(self, kind: str, group: str, *, required: bool = False) -> None:
        self.kind = kind
        self.group = group
        self._required = required
        self._constructors: dict[str, Callable[..., Any]] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[Constructor], Constructor]:
        """Decorator that registers a class or function under `name`; raises RegistryError.

        In a notebook or a shell, the same class may be written again and replaces the former one.
        """

        def decorate(constructor: Constructor) -> Constructor:
            if name in self._constructors and not _again(self._constructors[name], constructor):
                raise RegistryError(f"{self.kind} {name!r} is registered already")
            self._check(name, constructor)
            self._constructors[name] = constructor
            return constructor

        return decorate

    def get(self, name: str) -> Callable[..., Any]:
        """The constructor of `name`; raises UnknownNameError."""
        if name not in self._constructors:
            self._load_plugins()
        if name not in self._constructors:
            raise UnknownNameError(self._unknown(name))
        return self._constructors[name]

    def names(self) -> list[str]:
        """All names, sorted, plug-ins included."""
        self._load_plugins()
        return sorted(self._constructors)

    def summary(self, name: str) -> str:
        """First line of the constructor's docstring."""
        text = inspect.getdoc(self.get(name)) or ""
        return text.splitlines()[0] if text else ""

    def settings(self, name: str) -> type[BaseModel]:
        """The pydantic model of the constructor's keyword-only parameters; extra keys refused."""
        constructor = self.get(name)
        hints = _hints(constructor)
        fields: dict[str, Any] = {}
        for key, parameter in _keywords(constructor).items():
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[key] = (_without_bool(hints.get(key, Any)), default)
        config = ConfigDict(
            extra="forbid",
            frozen=True,
            protected_namespaces=(),
            validate_default=True,
            arbitrary_types_allowed=True,
        )
        return create_model(f"{self.kind} {name}", __config__=config, **fields)

    def build(self, config: Mapping[str, Any], *positional: Any) -> Any:
        """Construct `config["name"]` from its other keys; `positional` arguments come first.

        Raises UnknownNameError, pydantic.ValidationError, RegistryError without a name.
        """
        values = dict(config)
        name = values.pop("name", None)
        if not isinstance(name, str):
            raise RegistryError(f"{self.kind}: `name` is missing; one of {', '.join(self.names())}")
        settings = self.settings(name).model_validate(values)
        keywords = {key: getattr(settings, key) for key in type(settings).model_fields}
        return self.get(name)(*positional, **keywords)

    def _check(self, name: str, constructor: Callable[..., Any]) -> None:
        for parameter in inspect.signature(constructor).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                raise RegistryError(f"{self.kind} {name!r}: **{parameter.name} hides its settings")
        missing = [k for k, p in _keywords(constructor).items() if p.default is p.empty]
        if missing and not self._required:
            raise RegistryError(f"{self.kind} {name!r}: {', '.join(missing)} needs a default")

    def _unknown(self, name: str) -> str:
        names = self.names()
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" (did you mean {nearest[0]!r}?);" if nearest else ";"
        return f"no {self.kind} {name!r}{hint} valid: {', '.join(names) or '(none)'}"

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for entry in sorted(entry_points(group=self.group), key=lambda e: (e.name, e.value)):
            self._load_plugin(entry)

    def _load_plugin(self, entry: EntryPoint) -> None:
        source = f"entry point {entry.name} = {entry.value} of group {self.group}"
        try:
            loaded = entry.load()
        except Exception as error:
            raise RegistryError(f"{source} cannot be loaded: {error}") from error
        # An entry point names a module whose decorators register, or one constructor.
        if not inspect.ismodule(loaded) and loaded not in self._constructors.values():
            self.register(entry.name)(loaded)


def _again(present: Callable[..., Any], constructor: Callable[..., Any]) -> bool:
    """Whether a cell of a notebook runs again: its class takes the place of its former self."""
    same = present.__qualname__ == constructor.__qualname__
    return same and present.__module__ == constructor.__module__ == "__main__"


def _keywords(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(constructor).parameters
    return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def _hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    # The annotations of a class are its fields; its settings are annotated in __init__.
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    return typing.get_type_hints(function, include_extras=True)


def _without_bool(hint: Any) -> Any:
    """pydantic takes `yes` for 1; a setting that is a number does not."""
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return Annotated[hint, BeforeValidator(_refuse_bool)] if plain in (int, float) else hint


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, is true or false")
    return value


MODELS = Registry("model", "axonnx.models")
DATASETS = Registry("data set", "axonnx.datasets", required=True)
OBJECTIVES = Registry("objective", "axonnx.objectives")
SIMULATORS = Registry("simulator", "axonnx.simulators")
