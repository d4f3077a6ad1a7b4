"""The elements of a JSON file one at a time, so that a list need not fit into memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from score_video.errors import ScoreError

_CHUNK = 2**20  # bytes
_SPACE = re.compile(r"[ \t\n\r]*")
_OF_NUMBERS = "0123456789.eE+-"
_LONGEST_WORD = 16  # -Infinity, or half of a character and the other half: what may be cut off at the end of a chunk


def elements_of(path: Path) -> Iterator[Any]:
    """The elements of a list, or the values of an object, in order.

    Raises:
        ScoreError: it is no JSON, or neither a list nor an object; names the file, and the line and column.
    """
    with path.open("rb") as file:
        text = _Text(path, file)
        closing = {"[": "]", "{": "}"}.get(text.next_character())
        if closing is None:
            raise ScoreError(f"{path}: must be a list of rows, got {text.value()!r}")
        text.take()
        while text.next_character() != closing:
            if closing == "}":
                if text.next_character() != '"':
                    text.fail("Expecting property name enclosed in double quotes")
                text.value()
                text.expect(":")
            yield text.value()
            if text.next_character() != closing:
                text.expect(",")
                if text.next_character() == closing:
                    text.fail("Illegal trailing comma before end of " + ("array" if closing == "]" else "object"))
        text.take()
        if text.next_character():
            text.fail("Extra data")


class _Text:
    """A file as far as it has been read and is not used up."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._decoder = json.JSONDecoder()
        self._text, self._at, self._bytes, self._whole = "", 0, 0, False
        self._line, self._column = 1, 1  # of the text's first character

    def next_character(self) -> str:
        """That after white space; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = self._at if space is None else space.end()
            if self._at < len(self._text) or self._whole:
                return self._text[self._at : self._at + 1]
            self._read()

    def take(self) -> None:
        """Uses up the next character."""
        self._at += 1

    def expect(self, character: str) -> None:
        """Uses up the next character, which must be this one."""
        if self.next_character() != character:
            self.fail(f"Expecting {character!r} delimiter")
        self.take()

    def value(self) -> Any:
        """Uses up a value."""
        self.next_character()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - _LONGEST_WORD
                if self._whole or not cut_off:
                    self.fail(error.msg, error.pos)
            except RecursionError:
                raise ScoreError(f"{self._path}: nested too deeply") from None
            else:
                cut_off = isinstance(value, int | float) and not self._text[end:].lstrip(_OF_NUMBERS)
                if self._whole or not cut_off:
                    self._at = end
                    return value
            self._read()

    def fail(self, message: str, at: int | None = None) -> None:
        """Raises ScoreError, here or at a place in the text."""
        before = self._text[: self._at if at is None else at]
        line = self._line + before.count("\n")
        column = len(before) - before.rfind("\n") + (self._column - 1 if "\n" not in before else 0)
        where = f", line {line}" if line > 1 else ""
        raise ScoreError(f"{self._path}{where}, column {column}: not JSON ({message})")

    def _read(self) -> None:
        """More of the file, at least as much as is left over: a long value is not tried over and over."""
        used = self._text[: self._at]
        self._line += used.count("\n")
        self._column = len(used) - used.rfind("\n") if "\n" in used else self._column + len(used)
        content = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._whole = not content
        try:
            more = self._decode(content, self._whole)
        except UnicodeDecodeError as error:
            # the decoder had kept the bytes of a character that was cut off
            before = self._bytes - (len(error.object) - len(content))
            raise ScoreError(f"{self._path}: not UTF-8 at byte {before + error.start + 1}") from None
        self._bytes += len(content)
        self._text, self._at = self._text[self._at :] + more, 0
