"""Dockerfile instructions that change a config, as ``docker commit --change`` takes them.

CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR, with the quoting
and ``$variables`` of the Dockerfile reference; variables are those of the image itself.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from ..errors import UsageError, nearest

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?\Z")
_SIGNAL = re.compile(r"(?:SIG)?[A-Z0-9+-]+\Z")
_VARIABLE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<mode>[-+])(?P<word>[^}]*))?\})"
)
_MODIFIED = "image config's 'config' has an unusable"

Config = dict[str, object]


def apply(config: Mapping[str, object], changes: Sequence[str]) -> Config:
    """Return ``config`` with each of ``changes`` made, in order.

    Raises:
        UsageError: an unknown or malformed instruction; the message quotes it.
    """
    changed: Config = dict(config)
    set_command = False
    for change in changes:
        instruction, _, rest = change.strip().partition(" ")
        name, rest = instruction.upper(), rest.strip()
        handler = _HANDLERS.get(name)
        if handler is None:
            raise UsageError(
                f"can't change {instruction!r} in an image; possible are "
                f"{', '.join(sorted(_HANDLERS))}{nearest(name, _HANDLERS)}"
            )
        if not rest:
            raise UsageError(f"{name} needs a value, as in {_EXAMPLES[name]!r}")
        try:
            handler(changed, rest)
        except ValueError as error:
            raise UsageError(
                f"can't read {change!r}: {error}; write for example {_EXAMPLES[name]!r}"
            ) from None
        set_command = set_command or name == "CMD"
        if name == "ENTRYPOINT" and not set_command:
            # The inherited command was meant as arguments of the inherited entry point.
            changed.pop("Cmd", None)
    return changed


def _command(field: str) -> Callable[[Config, str], None]:
    def handler(config: Config, rest: str) -> None:
        config[field] = _json_list(rest) or ["/bin/sh", "-c", rest]

    return handler


def _env(config: Config, rest: str) -> None:
    known = _environment(config)
    known.update(_pairs(rest, known))
    config["Env"] = [f"{name}={value}" for name, value in known.items()]


def _expose(config: Config, rest: str) -> None:
    ports = _names(config, "ExposedPorts")
    for word in _words(rest, _environment(config)):
        match = _PORT.match(word)
        if match is None:
            raise ValueError(f"{word!r} is no port")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 < first <= last <= 65535:
            raise ValueError(f"{word!r} is out of range")
        ports.update((f"{port}/{match[3] or 'tcp'}", {}) for port in range(first, last + 1))
    config["ExposedPorts"] = ports


def _label(config: Config, rest: str) -> None:
    labels = _names(config, "Labels")
    labels.update(_pairs(rest, _environment(config)))
    config["Labels"] = labels


def _onbuild(config: Config, rest: str) -> None:
    trigger = rest.split()[0].upper()
    if trigger in {"ONBUILD", "FROM", "MAINTAINER"}:
        raise ValueError(f"{trigger} can't be triggered by ONBUILD")
    config["OnBuild"] = [*_list(config, "OnBuild"), rest]


def _stop_signal(config: Config, rest: str) -> None:
    (signal,) = _one_word(rest, config)
    if not _SIGNAL.match(signal.upper()):
        raise ValueError(f"{signal!r} is no signal")
    config["StopSignal"] = signal


def _user(config: Config, rest: str) -> None:
    (config["User"],) = _one_word(rest, config)


def _volume(config: Config, rest: str) -> None:
    volumes = _names(config, "Volumes")
    for word in _json_list(rest) or _words(rest, _environment(config)):
        if not word.strip():
            raise ValueError("an empty path")
        volumes[word] = {}
    config["Volumes"] = volumes


def _workdir(config: Config, rest: str) -> None:
    (path,) = _one_word(rest, config)
    now = config.get("WorkingDir")
    above = now if isinstance(now, str) and now else "/"
    joined = posixpath.normpath(posixpath.join("/", above, path))
    config["WorkingDir"] = f"/{joined.lstrip('/')}"


_HANDLERS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _command("Cmd"),
    "ENTRYPOINT": _command("Entrypoint"),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
_EXAMPLES = {
    "CMD": 'CMD ["python3", "-m", "http.server"]',
    "ENTRYPOINT": 'ENTRYPOINT ["/bin/program"]',
    "ENV": "ENV PATH=/opt/bin:$PATH",
    "EXPOSE": "EXPOSE 8080/tcp",
    "LABEL": 'LABEL version="1.0"',
    "ONBUILD": "ONBUILD RUN make",
    "STOPSIGNAL": "STOPSIGNAL SIGTERM",
    "USER": "USER nobody",
    "VOLUME": "VOLUME /var/lib/data",
    "WORKDIR": "WORKDIR /srv",
}


def _json_list(rest: str) -> list[str] | None:
    """Return the exec form, ``["a", "b"]``; None means the shell form."""
    if not rest.startswith("["):
        return None
    try:
        values: object = json.loads(rest)
    except ValueError:
        return None
    if not isinstance(values, list):
        return None
    texts = [text for text in cast("list[object]", values) if isinstance(text, str)]
    if len(texts) != len(cast("list[object]", values)):
        raise ValueError("the list holds something that isn't a string")
    return texts


def _pairs(rest: str, known: Mapping[str, str]) -> dict[str, str]:
    """Read ``a=1 b="2 3"``, or the old form ``a 1`` with everything after the name as value."""
    words = rest.split(None, 1)
    if "=" not in words[0]:
        if len(words) < 2:
            raise ValueError(f"{words[0]!r} has no value")
        return {words[0]: " ".join(_words(words[1], known))}
    found: dict[str, str] = {}
    for word in _words(rest, known):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"{word!r} should read NAME=VALUE")
        found[name] = value
    return found


def _one_word(rest: str, config: Config) -> list[str]:
    words = _words(rest, _environment(config))
    if len(words) != 1 or not words[0]:
        raise ValueError("one word is expected")
    return words


def _words(text: str, known: Mapping[str, str]) -> list[str]:
    """Split at white space; quotes, backslashes and variables as in a Dockerfile.

    Variables are replaced outside single quotes, and what they hold isn't split again.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\" and quote != "'" and position < len(text):
            word = (word or "") + text[position]
            position += 1
        elif character == quote:
            quote = ""
        elif character in "\"'" and not quote:
            quote, word = character, word or ""
        elif character == "$" and quote != "'":
            match = _VARIABLE.match(text, position - 1)
            word = (word or "") + (_value(match, known) if match else "$")
            position = match.end() if match else position
        elif character.isspace() and not quote:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    if quote:
        raise ValueError(f"a quote {quote} isn't closed")
    if word is not None:
        words.append(word)
    return words


def _value(match: re.Match[str], known: Mapping[str, str]) -> str:
    value = known.get(match["plain"] or match["name"], "")
    if match["mode"] == "-":
        return value or match["word"]
    if match["mode"] == "+":
        return match["word"] if value else ""
    return value


def _environment(config: Config) -> dict[str, str]:
    pairs = (text.partition("=") for text in _list(config, "Env"))
    return {name: value for name, _, value in pairs}


def _list(config: Config, field: str) -> list[str]:
    values: object = config.get(field) or []
    if not isinstance(values, list):
        raise ValueError(f"{_MODIFIED} {field}")
    return [text for text in cast("list[object]", values) if isinstance(text, str)]


def _names(config: Config, field: str) -> dict[str, object]:
    values: object = config.get(field) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{_MODIFIED} {field}")
    return dict(cast("dict[str, object]", values))
