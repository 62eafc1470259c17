"""An options model as the flags of a command: one place says name, type, default and help."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def flags(
    kind: type[BaseModel], *, leave_out: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command with a parameter `options` one flag for each field of `kind` in its place.

    What the model refuses is wrong usage (exit code 2) and names the flag and the value. Fields to `leave_out` keep
    their defaults.
    """
    names = [name for name in kind.model_fields if name not in leave_out]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [parameter for name, parameter in signature.parameters.items() if name != "options"]
        added = [_flag(kind, name) for name in names]

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(**values, options=_validated(kind, given))

        wrapper.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]  # what typer reads
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
        del wrapper.__wrapped__  # or its signature is read instead
        return wrapper

    return decorate


def flag_of(name: str) -> str:
    """A field as it is typed.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def _flag(kind: type[BaseModel], name: str) -> inspect.Parameter:
    field = kind.model_fields[name]
    option = typer.Option(help=field.description, rich_help_panel="Training options")
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=field.default,
        annotation=Annotated[field.annotation, option],
    )


def _validated(kind: type[BaseModel], given: dict[str, Any]) -> BaseModel:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise typer.BadParameter("; ".join(map(_problem, error.errors()))) from error


def _problem(found: ErrorDetails) -> str:
    message = found["msg"].removeprefix("Value error, ")
    if not found["loc"]:
        return message
    return f"--{'.'.join(map(str, found['loc'])).replace('_', '-')}: {message}, not {found['input']!r}"
