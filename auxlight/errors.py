"""The exceptions that stand for a user's mistake."""


class InputError(ValueError):
    """A value that a user gave breaks a rule.

    The message is one line: the parameter, the rule, the value found and, where it helps, the remedy. The command
    line prints it without a stack trace.
    """


class DivergedError(InputError):
    """A training whose numbers are no longer finite: what was validated before is all that there is to it."""
