"""The demo's corpus: the documentation of the Python that runs, one document per module, class, function and method.

Sources are parsed and never imported, since importing a module runs it. Modules written in C have no source; those of a
fixed list, which do nothing but define names, are imported, because people look for `str.split` and `time.sleep`.
"""

import ast
import importlib
import re
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from indexer.documents import BadRecord, Document
from indexer.store import FieldType

FIELDS: dict[str, FieldType] = {"metadata.module": "keyword", "metadata.kind": "keyword"}
"""Fields of these documents that filters may use."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SKIPPED = _words(
    "__main__ __phello__ dist-packages distutils encodings ensurepip idlelib lib2to3 ntpath pydoc pydoc_data "
    "site-packages test tests tix turtle turtledemo"
)
"""Folders and modules in which nobody looks anything up."""

PUBLIC_NAMES = {
    "_collections_abc": "collections.abc",
    "_py_warnings": "warnings",
    "_pydatetime": "datetime",
    "_pydecimal": "decimal",
    "_pyio": "io",
    "genericpath": "os.path",
    "posixpath": "os.path",
}
"""Where people import what a source of another name defines."""

C_MODULES = _words(
    "_bz2 _collections _contextvars _csv _datetime _functools _io _lzma _queue _random _signal _socket _sqlite3 _ssl "
    "_struct _weakref array atexit binascii builtins cmath faulthandler fcntl gc itertools marshal math mmap nt posix "
    "resource select sys syslog termios time unicodedata zlib"
)
"""Modules without a source that may be imported. An underscore in front is not part of the public name."""

PAGES = _words(
    "collections.abc concurrent.futures curses.ascii curses.panel email.charset email.encoders email.generator "
    "email.header email.message email.parser email.policy email.utils html.entities html.parser http.client "
    "http.cookiejar http.cookies http.server importlib.metadata importlib.resources logging.config logging.handlers "
    "multiprocessing.shared_memory os.path tkinter.colorchooser tkinter.font tkinter.messagebox tkinter.scrolledtext "
    "tkinter.ttk unittest.mock urllib.error urllib.parse urllib.request urllib.robotparser xml.dom xml.dom.minidom "
    "xml.dom.pulldom xml.etree.ElementTree xml.sax xml.sax.handler xml.sax.saxutils xml.sax.xmlreader xmlrpc.client "
    "xmlrpc.server"
)
"""Submodules with a page of their own on docs.python.org; any other is on the page of its package."""

_RECEIVER = re.compile(r"^\(\$\w+(, /)?(, )?")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Entry(NamedTuple):
    """One documented name: `module` and `name` as people write them, `signature` with its parentheses or empty."""

    kind: str
    module: str
    name: str
    signature: str
    text: str

    def document(self) -> Document:
        """The entry as it is indexed; its id is the qualified name."""
        qualified = self.module if self.kind == "module" else f"{self.module}.{self.name}"
        qualified = qualified.removeprefix("builtins.")
        return Document(
            id=qualified,
            title=qualified + textwrap.shorten(self.signature, 80, placeholder=" ...)"),
            text=self.text,
            url=f"https://docs.python.org/3/library/{self._page()}.html#{self._anchor(qualified)}",
            metadata={"module": self.module, "kind": self.kind},
        )

    def _anchor(self, qualified: str) -> str:
        return f"module-{qualified}" if self.kind == "module" else qualified

    def _page(self) -> str:
        if self.module == "builtins":
            return "functions" if self.kind == "function" else "stdtypes"
        return self.module if self.module in PAGES else self.module.split(".")[0]


def read_stdlib(folder: Path | None = None) -> Iterator[Document | BadRecord]:
    """The standard library in a fixed order; of two definitions of one name the first is taken.

    Args:
        folder: Sources to read; by default those of the running interpreter, and its modules written in C.

    Yields:
        A document per name, and a bad record per source that cannot be parsed.
    """
    sources = _entries_of_sources(folder or Path(sysconfig.get_path("stdlib")))
    compiled = _entries_of_c_modules() if folder is None else ()
    seen: set[str] = set()
    for entry in chain(sources, compiled):
        if isinstance(entry, BadRecord):
            yield entry
        elif (document := entry.document()).id not in seen:
            seen.add(document.id)
            yield document


def _entries_of_sources(folder: Path) -> Iterator[Entry | BadRecord]:
    exported: dict[tuple[str, str], str] = {}
    for path in sorted(folder.rglob("*.py")):
        module = _module_name(path.relative_to(folder))
        if module is None:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError) as error:
            yield BadRecord(str(path), getattr(error, "lineno", None) or 0, f"not Python: {error}", "")
            continue
        if path.name == "__init__.py":
            exported |= _exports(module, tree)
        yield from _entries_of_tree(module, tree, exported)


def _module_name(path: Path) -> str | None:
    """The name a source is imported by, or None for one that is skipped."""
    parts = path.with_suffix("").parts
    if any(part in SKIPPED or not part.isidentifier() for part in parts):
        return None
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return PUBLIC_NAMES.get(name, name)


def _exports(package: str, tree: ast.Module) -> dict[tuple[str, str], str]:
    """What a package imports from its own modules, as (module, name) -> package; `*` stands for every name."""
    imports = (statement for statement in tree.body if isinstance(statement, ast.ImportFrom))
    return {
        (f"{package}.{statement.module}" if statement.level else str(statement.module), alias.name): package
        for statement in imports
        for alias in statement.names
    }


def _entries_of_tree(module: str, tree: ast.Module, exported: dict[tuple[str, str], str]) -> Iterator[Entry]:
    private = any(part.startswith("_") for part in module.split("."))
    about = ast.get_docstring(tree)
    if about and not private:
        yield Entry("module", module, "", "", about)
    for node in _definitions(tree.body):
        home = exported.get((module, node.name)) or exported.get((module, "*"))
        if home or not private:
            yield from _entries_of_definition(home or module, node)


def _definitions(body: Iterable[ast.stmt]) -> Iterator[_Definition]:
    """Public functions and classes, also those that stand under a condition."""
    for node in body:
        if isinstance(node, _Definition):
            if not node.name.startswith("_"):
                yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions([*node.body, *node.orelse])


def _entries_of_definition(module: str, node: _Definition) -> Iterator[Entry]:
    if not isinstance(node, ast.ClassDef):
        yield from _entry("function", module, node.name, ast.get_docstring(node), _signature(node.args))
        return
    made_by = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    text = ast.get_docstring(node) or (ast.get_docstring(made_by) if made_by else None)
    yield from _entry("class", module, node.name, text, _signature(made_by.args) if made_by else "")
    for method in _definitions(node.body):
        if not isinstance(method, ast.ClassDef):
            name = f"{node.name}.{method.name}"
            yield from _entry("method", module, name, ast.get_docstring(method), _signature(method.args))


def _entry(kind: str, module: str, name: str, text: str | None, signature: str) -> Iterator[Entry]:
    if text and text.strip():
        yield Entry(kind, module, name, signature, text.strip())


def _signature(arguments: ast.arguments) -> str:
    """Parameters with their defaults, without annotations and without the receiver."""
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    first, _, others = ast.unparse(arguments).partition(", ")
    return f"({others})" if first in {"self", "cls"} else f"({ast.unparse(arguments)})"


def _entries_of_c_modules() -> Iterator[Entry]:
    for name in sorted(C_MODULES):
        try:
            module = importlib.import_module(name)
        except ImportError:  # of another platform, or left out when this Python was built
            continue
        yield from _entries_of_c_module("os" if name in {"nt", "posix"} else name.removeprefix("_"), module)


def _entries_of_c_module(public: str, module: ModuleType) -> Iterator[Entry]:
    yield from _entry("module", public, "", module.__doc__, "")
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or getattr(value, "__name__", None) != name:
            continue
        kind = "class" if isinstance(value, type) else "function"
        yield from _entry(kind, public, name, value.__doc__, _c_signature(value))
        for method, function in sorted(vars(value).items()) if kind == "class" else ():
            if not method.startswith("_") and callable(function):
                yield from _entry("method", public, f"{name}.{method}", function.__doc__, _c_signature(function))


def _c_signature(value: object) -> str:
    """As `inspect.signature` would read it, without the receiver; empty where C code left none."""
    text = getattr(value, "__text_signature__", None) or ""
    return _RECEIVER.sub("(", " ".join(text.split()))
