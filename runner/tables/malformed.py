"""What is raised of files that cannot be read as what they are said to be."""

from __future__ import annotations


class MalformedError(Exception):
    """The file cannot be read; the message names the problem and is safe for a terminal."""


class TooLargeError(MalformedError):
    """The file may be sound, and is more than is opened."""
