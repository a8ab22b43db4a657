"""The one line that matters in jsonargparse's reports."""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from jsonargparse import ArgumentError, ArgumentParser

from auxlight.errors import InputError

# A report lists every type that was tried for a value; these lines are its scaffolding.
_SCAFFOLDING = re.compile(
    r"Does not validate|Subtypes:|Errors:|Expected a <class '(?:NoneType|list)'>|Expected a path but|Given value|"
    r"Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with|a path to"
)
_KEY = re.compile(r'Parser key "([^"]+)":?')
_CALLABLE = re.compile(r"Type .* expects a function or a callable class:")
_CLASS = re.compile(r"Problem with given class_path '([^']+)':")

_OPTION = re.compile(r"Option '([\w.]+)' is not accepted\.?(?: Got value: Namespace\(class_path='([\w.]+)'.*)?")
_UNKNOWN = re.compile(r"unrecognized arguments: --([\w.]+)")
_ATTRIBUTE = re.compile(r"module '([\w.]+)' has no attribute '(\w+)'\.?")
_TYPE = re.compile(r"Expected a <class '(\w+)'>(?:\. Got value: (.*))?")
_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}


def _alike(module: str, name: str) -> str:
    """What a module has by nearly this name."""
    found = get_close_matches(name, vars(sys.modules[module]) if module in sys.modules else (), 1)
    return f": is it {module}.{found[0]}?" if found else ""


def _meant(option: str, parser: ArgumentParser) -> str:
    """What a parser has by nearly this name, or by that of the part it begins with.

    Its help lists what it takes, a data module's passed-on options, too.
    """
    listed = re.findall(r"^ +--([\w.]+)", parser.format_help(), flags=re.MULTILINE)
    known = [name.removesuffix(".help") for name in listed]
    found = get_close_matches(option, known, 1) or get_close_matches(option.split(".")[0], known, 1)
    return f": is it {found[0]}?" if found else ""


def _meant_of(option: str, class_path: str) -> str:
    """What a class or a function takes by nearly this name; nothing where that cannot be told."""
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser(exit_on_error=False)
    try:
        owner = getattr(importlib.import_module(module), name)
        add = parser.add_class_arguments if isinstance(owner, type) else parser.add_function_arguments
        add(owner, fail_untyped=False)
        return _meant(option, parser)
    except Exception:  # whatever a user's class makes of it: the report itself must come through
        return ""


@contextmanager
def one_line(parser: ArgumentParser) -> Iterator[None]:
    """Inside this block a parser's reports become one line.

    Args:
        parser: which reports; it knows what an option that it does not know may have meant.

    Raises:
        InputError: what the parser refuses.
    """
    try:
        yield
    except ArgumentError as error:
        raise InputError(parser_cause(str(error), parser)) from error


def parser_cause(report: str, parser: ArgumentParser | None = None) -> str:
    """Key, value and first cause of a jsonargparse error, in one line.

    Args:
        report: the error's text, often twenty lines.
        parser: see `one_line`.
    """
    keys: list[str] = []
    class_path = ""
    for line in report.splitlines():
        line = line.strip().removeprefix("- ").strip()
        keys += _KEY.findall(line)
        line = _CALLABLE.sub("", _KEY.sub("", line)).strip()
        if found := _CLASS.match(line):
            class_path = found[1]
        elif line and not _SCAFFOLDING.match(line):
            where = ".".join(keys)
            named = class_path if class_path and class_path not in line else ""
            if found := _OPTION.match(line):
                owner = found[2] or class_path
                named = owner if owner else named
                line = f"Option '{found[1]}' is not accepted{_meant_of(found[1], owner) if owner else ''}"
                if where.count(".") < 2:  # of a part of a part the parser knows nothing without the configs
                    command = parser.prog.replace(" [options]", "") if parser else "auxlight fit"
                    option = f"{command} --{where}.help {owner}" if where else f"{command} --help"
                    line += f"{'' if line.endswith('?') else ':'} `{option}` lists those that are"
                if class_path == "auxlight.AuxiliaryClassifier":  # which stands until a config names another
                    line += " (a method's config must come before those that change it)"
            if found := _UNKNOWN.match(line):
                line += _meant_of(found[1], class_path) if class_path else _meant(found[1], parser) if parser else ""
            if found := _ATTRIBUTE.match(line):
                line = f"{found[1]} has no {found[2]}{_alike(found[1], found[2])}"
            if found := _TYPE.match(line):
                line = f"must be {_KINDS.get(found[1], found[1])}{f'. Found {found[2]}' if found[2] else ''}"
            if line.startswith("the following arguments are required") and ".model" in line:
                line += ": begin with `--config configs/<method>.yaml`, or give `--ckpt_path`"
            # auxlight's own messages (they begin with the parameter) say it all.
            return line if line.startswith("`") else ": ".join(part for part in (where, named, line) if part)
    return " ".join(report.split())
