"""One pattern of the gitignore language, from its bytes to what it matches.

The language is gitignore(5) as git's wildmatch reads it, byte by byte: `?` and a class stand for
one byte of a name, whatever its encoding. Where versions of git differ the documentation decides:
`foo**/bar` means `foo*/bar` (git before 2.52 let it match `foobar` too).

pathspec is not used: it reads named classes, `[\\]]`, `\\/`, and tabs and backslashes at the end
otherwise than git does, and raises an error for some of them.

A pattern is split into the directories that it asks for and a glob for the name alone, because a
walk asks about many names in one directory: `dirs` is matched once per directory, `name` per entry.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

_SLASH = ord("/")

#: git's own ctype, not the C library's: no \v and \f among spaces, nothing above 0x7f anywhere.
_CLASSES = {
    b"alnum": (string.digits + string.ascii_letters).encode(),
    b"alpha": string.ascii_letters.encode(),
    b"blank": b" \t",
    b"cntrl": bytes(range(0x20)) + b"\x7f",
    b"digit": string.digits.encode(),
    b"graph": bytes(range(0x21, 0x7F)),
    b"lower": string.ascii_lowercase.encode(),
    b"print": bytes(range(0x20, 0x7F)),
    b"punct": string.punctuation.encode(),
    b"space": b" \t\n\r",
    b"upper": string.ascii_uppercase.encode(),
    b"xdigit": string.hexdigits.encode(),
}

#: Two stars or more that fill a whole component are a tree; other stars are one star.
#: A tree with an escaped slash behind it is no special case of wildmatch, which then wants the
#: slash itself and so at least one directory.
_TOKEN = re.compile(
    rb"(?:(?<=/)|(?<![\s\S]))\*\*+(?:(?P<tree>/)|(?P<tree1>\\/)|(?P<all>\Z))"
    rb"|(?P<star>\*+)|(?P<any>\?)|(?P<set>\[)|(?P<slash>\\?/)|\\(?P<escaped>[\s\S])"
    rb"|(?P<dangling>\\)|(?P<byte>[\s\S])"
)
_MEMBER = re.compile(
    rb"\[:(?P<named>[^\]]*):\]|(?P<low>\\[\s\S]|[^\\])(?:-(?P<high>\\[\s\S]|[^\\\]]))?"
)


class _Wild(Enum):
    STAR = "*"
    TREE = "**/"


#: A glob within one component: bytes, regexes of one byte, stars.
_Tokens = list[int | bytes | _Wild]


class _Unmatchable(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Glob:
    """What a name must be: `literal`, or anything with `suffix` behind it, or, if both are None,
    what `regex` matches whole (it is right in each case)."""

    regex: bytes
    literal: bytes | None = None
    suffix: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """`dirs` is where names are matched, relative to where the pattern is anchored: b"" for there,
    b"a/b/" below it; a regex matches such a path whole, and None stands for every directory.
    `depth` is the number of components that a regex takes, None for any number.
    """

    negated: bool
    dir_only: bool
    name: Glob
    dirs: bytes | re.Pattern[bytes] | None = None
    depth: int | None = None


def parse_lines(data: bytes) -> list[tuple[int, bytes]]:
    """(line number, pattern) of a rule file, without comments, line ends and trailing spaces."""
    lines = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.startswith(b"#"):
            continue
        # git keeps lines as C strings: what follows a NUL is not there.
        text = _trim(line.removesuffix(b"\r").partition(b"\0")[0])
        if text:
            lines.append((number, text))
    return lines


def _trim(line: bytes) -> bytes:
    """Without its trailing spaces, but for one that a backslash escapes. Tabs stay."""
    short = line.rstrip(b" ")
    escaped = len(short) < len(line) and (len(short) - len(short.rstrip(b"\\"))) % 2
    return short + b" " if escaped else short


def parse_pattern(text: bytes) -> Pattern | None:
    """`text` as one pattern; None if nothing can match it: `/`, `a[b`, `[[:alhpa:]]`, `a\\`."""
    body = text.removeprefix(b"!")
    dir_only = body.endswith(b"/")
    body = body[:-1] if dir_only else body
    try:
        parts, tokens = _split(body.removeprefix(b"/"))
    except _Unmatchable:
        return None
    if not tokens:
        return None
    negated = text.startswith(b"!")
    if b"/" not in body or parts == [_Wild.TREE]:
        return Pattern(negated, dir_only, _glob(tokens))
    names = [None if isinstance(part, _Wild) else _literal(part) for part in parts]
    if None not in names:
        dirs = b"".join(name + b"/" for name in names if name is not None)
        return Pattern(negated, dir_only, _glob(tokens), dirs)
    depth = None if _Wild.TREE in parts else len(parts)
    return Pattern(negated, dir_only, _glob(tokens), re.compile(_dirs_regex(parts)), depth)


def literal_directories(text: bytes) -> list[bytes]:
    """The directories, each below the one before, that everything which `text` matches is below:
    b"a/", b"a/b/" of `a/b/*.c` and `a/b/**/x`. Those written with a backslash do not count."""
    directories: list[bytes] = []
    for name in text.removeprefix(b"!").removesuffix(b"/").removeprefix(b"/").split(b"/")[:-1]:
        if not name or any(byte in b"*?[\\" for byte in name):
            break
        directories.append((directories[-1] if directories else b"") + name + b"/")
    return directories


def _split(body: bytes) -> tuple[list[_Tokens | _Wild], _Tokens]:
    """The directories that `body` asks for, and its last component."""
    parts: list[_Tokens | _Wild] = []
    tokens: _Tokens = []
    at = 0
    while match := _TOKEN.match(body, at):
        at = match.end()
        match match.lastgroup:
            case "tree":
                parts.append(_Wild.TREE)
            case "tree1":
                parts += [[_Wild.STAR], _Wild.TREE]
            case "all":
                parts.append(_Wild.TREE)
                tokens = [_Wild.STAR]
            case "slash":
                parts.append(tokens)
                tokens = []
            case "star":
                tokens.append(_Wild.STAR)
            case "any":
                tokens.append(b"[^/]")
            case "set":
                regex, at = _bracket(body, at)
                tokens.append(regex)
            case "dangling":
                raise _Unmatchable
            case _:
                tokens.append(match[0][-1])
    return parts, tokens


def _bracket(body: bytes, at: int) -> tuple[bytes, int]:
    """The class that opens before `at`: the regex of the bytes in it, and where it ends."""
    negated = body[at : at + 1] in (b"!", b"^")
    at += negated
    members: set[int] = set()
    while True:  # a bracket that closes at once is a member, so ask for the end after each one
        member = _MEMBER.match(body, at)
        if member is None:
            raise _Unmatchable
        at = member.end()
        if member["named"] is None:
            low = member["low"][-1]
            members.add(low)  # also if the range is empty, as in [z-a]
            members.update(range(low, (member["high"] or b"\0")[-1] + 1))
        elif member["named"] in _CLASSES:
            members.update(_CLASSES[member["named"]])
        else:
            raise _Unmatchable
        if body[at : at + 1] == b"]":
            return _one_of(members, negated), at + 1


def _one_of(members: set[int], negated: bool) -> bytes:
    """The regex of one byte among `members`, or not among them; a slash it never is."""
    if negated:
        return b"[^%s]" % _escape(members | {_SLASH})
    members = members - {_SLASH}
    if not members:
        raise _Unmatchable
    return b"[%s]" % _escape(members)


def _escape(members: Iterable[int]) -> bytes:
    return b"".join(b"\\x%02x" % byte for byte in sorted(members))


def _glob(tokens: _Tokens) -> Glob:
    regex = _component_regex(tokens)
    if tokens[0] is _Wild.STAR:
        return Glob(regex, suffix=_literal(tokens[1:]))
    return Glob(regex, literal=_literal(tokens))


def _literal(tokens: _Tokens) -> bytes | None:
    plain = [token for token in tokens if isinstance(token, int)]
    return bytes(plain) if len(plain) == len(tokens) else None


def _component_regex(tokens: _Tokens) -> bytes:
    """Linear to match: what stands between two stars is looked for once, and the first place where
    it is found is final, which loses nothing as a star follows."""
    chunks = [b""]
    for token in tokens:
        if isinstance(token, _Wild):
            chunks.append(b"")
        else:
            chunks[-1] += b"\\x%02x" % token if isinstance(token, int) else token
    first, *middle = chunks
    if not middle:
        return first
    last = middle.pop()
    return first + b"".join(b"(?>[^/]*?%s)" % chunk for chunk in middle) + b"[^/]*" + last


def _dirs_regex(parts: Sequence[_Tokens | _Wild]) -> bytes:
    """As `_component_regex`, with trees for stars and components for bytes."""
    chunks = [b""]
    for part in parts:
        if isinstance(part, _Wild):
            chunks.append(b"")
        else:
            chunks[-1] += _component_regex(part) + b"/"
    first, *middle = chunks
    if not middle:
        return first
    last = middle.pop()
    return first + b"".join(b"(?>(?:[^/]+/)*?%s)" % c for c in middle) + b"(?:[^/]+/)*" + last
