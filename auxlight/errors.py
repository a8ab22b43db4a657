"""The one exception that stands for a user's mistake."""


class InputError(ValueError):
    """A value that a user gave breaks a rule.

    The message is one line: the parameter, the rule, the value found and, where it helps, the remedy. The command
    line prints it without a stack trace.
    """
