"""An options model as the flags of a command."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typer.testing import CliRunner, Result

from model.flags import flags
from model.options import FinetuneOptions, PretrainOptions


class Cake(BaseModel):
    """What to bake."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: int = Field(2, ge=1, le=9, description="One above the other.")
    oven_heat: float = Field(180.0, gt=0, description="In degrees.")
    icing: bool = Field(False, description="On top.")
    sort: Literal["plum", "nut"] = Field("nut", description="Of cake.")
    candles: int | None = Field(None, ge=0, description="None at all where not given.")

    @model_validator(mode="after")
    def _stands(self) -> "Cake":
        if self.icing and self.layers > 5:
            raise ValueError("icing on more than 5 layers: it falls over")
        return self


def app(kind: type[BaseModel] = Cake) -> typer.Typer:
    built = typer.Typer()

    @built.command()
    @flags(kind)
    def bake(
        plate: Annotated[Path, typer.Argument(help="Where to.")],
        options: BaseModel,
        guests: Annotated[list[str] | None, typer.Option(help="Who comes.")] = None,
    ) -> None:
        """Bake a cake."""
        typer.echo(f"{plate} {guests or 'nobody'}")
        typer.echo(options.model_dump_json())

    return built


def invoke(*words: str, kind: type[BaseModel] = Cake) -> Result:
    return CliRunner().invoke(app(kind), [*words], env={"COLUMNS": "200", "NO_COLOR": "1"})


def options(*words: str) -> Cake:
    result = invoke("plate", *words)
    assert result.exit_code == 0, result.output
    return Cake.model_validate_json(result.output.splitlines()[1])


def test_what_is_not_said_is_the_model_s_default() -> None:
    assert options() == Cake()


@pytest.mark.parametrize("kind", [PretrainOptions, FinetuneOptions])
def test_the_options_of_training_are_their_defaults_too(kind: type[BaseModel]) -> None:
    assert invoke("plate", kind=kind).output.splitlines()[1] == kind().model_dump_json()


def test_each_field_is_a_flag_of_its_type() -> None:
    chosen = options("--layers", "3", "--oven-heat", "1.5e2", "--icing", "--sort", "plum", "--candles", "0")
    assert chosen == Cake(layers=3, oven_heat=150.0, icing=True, sort="plum", candles=0)
    assert options("--no-icing") == Cake()


def test_the_command_s_own_parameters_stay() -> None:
    assert invoke("here", "--guests", "Ada", "--guests", "Bob").output.startswith("here ['Ada', 'Bob']\n")
    assert "Missing argument 'plate'" in invoke().output.replace("PLATE", "plate")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--layers", "0"], "--layers: Input should be greater than or equal to 1, not 0"),
        (["--oven-heat", "-4"], "--oven-heat: Input should be greater than 0, not -4.0"),
        (["--candles", "-1"], "--candles: Input should be greater than or equal to 0, not -1"),
        (["--layers", "10", "--candles", "-1"], "not 10; --candles: Input should"),
        (["--icing", "--layers", "6"], "Invalid value: icing on more than 5 layers: it falls over"),
        (["--layers", "many"], "Invalid value for '--layers': "),
        (["--sort", "rock"], "'rock' is not one of 'plum', 'nut'"),
        (["--layerz", "3"], "No such option: --layerz"),
    ],
)
def test_what_cannot_be_is_wrong_usage_and_names_flag_and_value(words: list[str], complaint: str) -> None:
    result = invoke("plate", *words)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())


def test_help_says_what_each_field_is() -> None:
    said = " ".join(invoke("--help").output.split())
    for word in ("Bake a cake.", "Where to.", "--guests", "One above the other.", "--oven-heat", "--no-icing", "plum"):
        assert word in said
    assert "default: 180.0" in said
    assert "--options" not in said
