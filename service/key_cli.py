"""`dupmae key ...`: who may ask the service."""

import json
from datetime import UTC, datetime
from typing import Annotated, cast

import typer
from pydantic import ValidationError

from service.caller import Scope, Tenant
from service.keys import Key, Rate, create_key, read_keys, revoke_key
from service.settings import Settings

app = typer.Typer(help="Keys: who may ask the service, and for what.", no_args_is_help=True, add_completion=False)

CREATE_EXAMPLES = """Example: dupmae key create website --scope search --rate 20

dupmae key create acme --scope search --scope write --tenant metadata.tenant=acme --expires 2027-12-31"""

Name = Annotated[str, typer.Argument(help="What the key is called in logs: letters, digits, . _ -")]


@app.command(epilog=CREATE_EXAMPLES)
def create(
    ctx: typer.Context,
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="search, write or admin, which includes both; repeat for more. [default: search]"),
    ] = None,
    index: Annotated[list[str] | None, typer.Option(help="The only indexes it may use; repeat for more.")] = None,
    tenant: Annotated[
        str | None,
        typer.Option(metavar="FIELD=VALUE", help="The only documents it may see, such as metadata.team=red."),
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second that it may send in the long run.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once; those of two seconds when not given.")] = None,
    expires: Annotated[str | None, typer.Option(help="Day or time when it ends: 2027-12-31, in UTC.")] = None,
) -> None:
    """Make a key and show its secret, once. Running services know it within a second or two."""
    settings = _settings(ctx)
    if burst is not None and rate is None:
        raise typer.BadParameter("--burst goes with --rate")
    try:
        secret = create_key(
            settings.key_file,
            name,
            cast(list[Scope], scope or ["search"]),  # checked by the key
            indexes=index or (),
            tenant=_tenant(tenant) if tenant is not None else None,
            rate=_rate(rate, burst) if rate is not None else None,
            expires=_instant(expires) if expires else None,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise typer.BadParameter(
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r}"
        ) from error
    typer.echo(f"Key {name!r} is kept in {settings.key_file}, without its secret, which is shown this once:", err=True)
    typer.echo(secret)


@app.command("list", epilog="Example: dupmae key list --json")
def list_keys(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False
) -> None:
    """Show the keys there are, never a secret."""
    keys = read_keys(_settings(ctx).key_file) or ()
    if as_json:
        shown = [key.model_dump(mode="json", exclude={"sha256"}, exclude_none=True) for key in keys]
        typer.echo(json.dumps(shown, indent=2))
    elif keys:
        _show(keys)
    else:
        typer.echo(f"No keys in {_settings(ctx).key_file}. Make one with `dupmae key create NAME`.", err=True)


@app.command(epilog="Example: dupmae key revoke website")
def revoke(ctx: typer.Context, name: Name) -> None:
    """Remove a key. Running services refuse it within a second or two."""
    path = _settings(ctx).key_file
    revoke_key(path, name)
    typer.echo(f"Key {name!r} is revoked.", err=True)
    if not read_keys(path):
        typer.echo(f"It was the last one: nobody may ask until there is another, or {path} is deleted.", err=True)


def _settings(ctx: typer.Context) -> Settings:
    assert isinstance(ctx.obj, Settings)
    return ctx.obj


def _tenant(pair: str) -> Tenant:
    field, _, value = pair.partition("=")
    return Tenant(field=field, value=value)


def _rate(per_second: float, burst: int | None) -> Rate:
    rate = Rate(per_second=per_second, burst=1 if burst is None else burst)
    return rate if burst else rate.model_copy(update={"burst": min(max(1, round(2 * per_second)), 1_000_000)})


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--expires {text!r} is no date such as 2027-12-31") from error
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    if instant <= datetime.now(UTC):
        raise typer.BadParameter(f"--expires {text!r} is in the past")
    return instant


def _show(keys: tuple[Key, ...]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("key", "scopes", "indexes", "tenant", "rate", "created", "expires", box=None)
    for key in keys:
        table.add_row(
            key.name,
            ", ".join(key.scopes),
            ", ".join(key.indexes or ()) or "all",
            f"{key.tenant.field}={key.tenant.value}" if key.tenant else "",
            f"{key.rate.per_second:g}/s, {key.rate.burst} at once" if key.rate else "",
            f"{key.created:%Y-%m-%d}",
            _until(key),
        )
    Console().print(table)


def _until(key: Key) -> str:
    expired = key.expires and key.expired(datetime.now(UTC))
    return f"{key.expires:%Y-%m-%d %H:%M}{' (over)' if expired else ''}" if key.expires else "never"
