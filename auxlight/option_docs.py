"""What `--help` says of arguments that a class passes on."""

import inspect


def share_docs(options: type, *owners: type) -> None:
    """Give a TypedDict of passed-on arguments what the classes that take them say of each.

    jsonargparse looks for the text of ``**options: Unpack[Options]`` in the TypedDict, where nobody should write it a
    second time.

    Args:
        options: the TypedDict.
        owners: the classes, each with a section "Args:" in its docstring.
    """
    sections = [
        inspect.cleandoc(owner.__doc__ or "").partition("\nArgs:\n")[2].partition("\n\n")[0] for owner in owners
    ]
    options.__doc__ = "\n".join([inspect.cleandoc(options.__doc__ or ""), "\nArgs:", *sections, ""])
