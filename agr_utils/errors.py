"""The one error that means: what was handed in cannot be used."""


class InputError(ValueError):
    """Raised for bad input. Its text is one line: what was wrong, where, and what to do next."""
