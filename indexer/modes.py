"""How a query may be answered; a module of its own, so that the help of `dupmae search` needs no engine."""

from typing import Literal

Mode = Literal["fused", "cls", "ot", "rrf"]
