"""The one line that matters in jsonargparse's reports."""

import re

# A report lists every type that was tried for a value; these lines are its scaffolding.
_SCAFFOLDING = re.compile(
    r"Does not validate|Subtypes:|Errors:|Expected a <class '(?:NoneType|list)'>|Expected a path but|Given value|"
    r"Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with|a path to"
)
_KEY = re.compile(r'Parser key "([^"]+)":?')
_CALLABLE = re.compile(r"Type .* expects a function or a callable class:")
_CLASS = re.compile(r"Problem with given class_path '([^']+)':")


def parser_cause(report: str) -> str:
    """Key, value and first cause of a jsonargparse error, in one line.

    Args:
        report: the error's text, often twenty lines.
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
            if re.match(r"Option '.*' is not accepted", line):
                option = f"--{where}.help {class_path}" if where else "--help"
                line += f": `{option}` lists those that are"
                if class_path == "auxlight.AuxiliaryClassifier":  # which stands until a config names another
                    line += " (a method's config must come before those that change it)"
            if line.startswith("the following arguments are required") and ".model" in line:
                line += ": begin with `--config configs/<method>.yaml`, or give `--ckpt_path`"
            # auxlight's own messages (they begin with the parameter) say it all.
            return line if line.startswith("`") else ": ".join(part for part in (where, named, line) if part)
    return " ".join(report.split())
