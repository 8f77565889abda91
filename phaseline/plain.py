"""Texts of jobs on a terminal. PURE.

Tags, messages and errors are written by whoever submits a job or wrote its engine, and read by somebody else. A terminal
takes control characters in them for commands (ECMA-48): to clear what was shown, to rename its window, to write over a line.
"""

import re

# C0 but for tab and newline, DEL, and C1, which begins commands in one character.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PICTURES = 0x2400  # the block of Unicode that pictures C0


def plain(text: str) -> str:
    """The text with its control characters shown instead of sent, such as ␛ for escape."""
    return _CONTROLS.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_PICTURES + code)
    return "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
