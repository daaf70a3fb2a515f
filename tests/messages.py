"""What a line on stderr must name: tests say it as the Python message, commands as typed."""

from __future__ import annotations


def says(err: str, expected: str) -> bool:
    """Whether `err` holds a message, or the same with the flag in place of a parameter's name.

    expected: any part of a message; "name = value: must be allowed", or its beginning, is found as
    "--name typed: must be allowed" too, however the value was typed.
    """
    if expected in err:
        return True
    name, equals, rest = expected.partition(" = ")
    _, _, allowed = rest.partition(": must be")
    if not equals:
        return False
    flag = name.removeprefix("error: ").replace("_", "-")
    return (
        any(
            word.startswith("--") and (word == f"--{flag}" or word.endswith(f"-{flag}"))
            for word in err.partition(": must be")[0].split()
        )
        and f": must be{allowed}" in err
    )
