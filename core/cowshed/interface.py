"""Interface: whether a driver is one, found out before it can do harm, and said in one sentence.

A stranger's driver is looked at three times, each time as late as it can be: its spec when it is
registered, which imports nothing; its class when it is loaded; the object when it is opened. What
these looks can't find, the conformance kit does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import attrs

from .driver import Capability, Driver, DriverSpec
from .errors import CowshedError, DriverError
from .register import common_problem, type_name

Factory = Callable[[Path, Any], Driver]

#: What a stranger's code may raise, ``sys.exit()`` at the top of a module included.
ANYTHING = (Exception, SystemExit)


# -- the spec ----------------------------------------------------------------------------------


def spec_problem(spec: DriverSpec) -> str | None:
    """Say how ``spec`` breaks the interface; None if it doesn't. Its name is checked elsewhere."""
    problem = common_problem(spec, "load", "probe")
    if problem:
        return problem
    depth = cast(object, spec.max_depth)
    if depth is not None and (not isinstance(depth, int) or isinstance(depth, bool)):
        return f"its max_depth is {type_name(depth)}, not a whole number or None"
    if isinstance(depth, int) and depth < 1:
        return f"its max_depth is {depth}; a driver holds one layer at least"
    return _capability_problem(spec.capabilities) or _options_problem(spec.options)


def _capability_problem(capabilities: object) -> str | None:
    wrong = f"its capabilities are {type_name(capabilities)}, not a frozenset of Capability"
    if isinstance(capabilities, str) or not isinstance(capabilities, Iterable):
        return wrong
    members = list(cast("Iterable[object]", capabilities))
    for member in members:
        if not isinstance(member, Capability):
            return f"its capability {member!r:.100} is no Capability"
    for member in members:
        if members.count(member) > 1:
            return f"its capability {cast(Capability, member).name} is there twice"
    return None if isinstance(capabilities, frozenset) else wrong


def _options_problem(options: object) -> str | None:
    if options is None:
        return None
    if not isinstance(options, type) or not attrs.has(options):
        return f"its options are {options!r:.100}, not an attrs class"
    for field in attrs.fields(options):
        if field.init and field.default is attrs.NOTHING:
            return f"its option {field.alias} has no default"
    return None


# -- the probe ---------------------------------------------------------------------------------


def probe(spec: DriverSpec, root: Path) -> str | None:
    """Say in one sentence why the driver can't keep its data at ``root``; None if it can.

    Raises:
        DriverError: the probe breaks the interface.
    """
    try:
        answer = cast(object, spec.probe(root))
    except ANYTHING as error:
        raise DriverError(spec.name, f"its probe raised {describe(error)}") from error
    if answer is None or isinstance(answer, str):
        return answer
    raise DriverError(spec.name, f"its probe returned {answer!r:.100}, not a sentence or None")


# -- the class ---------------------------------------------------------------------------------


def load_driver(spec: DriverSpec) -> Factory:
    """Import the driver and return its factory.

    Raises:
        DriverError: it can't be imported, or breaks the interface.
    """
    try:
        factory = cast(object, spec.load())
    except ImportError as error:
        raise DriverError(spec.name, f"can't be imported: {error}") from error
    except ANYTHING as error:
        raise DriverError(spec.name, f"its load raised {describe(error)}") from error
    problem = _factory_problem(factory)
    if problem:
        raise DriverError(spec.name, problem)
    return cast(Factory, factory)


def _factory_problem(factory: object) -> str | None:
    if not callable(factory):
        return f"its load returned {factory!r:.100}, not a driver's class"
    shown = getattr(factory, "__name__", repr(factory))
    if isinstance(factory, type):
        problem = class_problem(factory)
        if problem:
            return problem
    signature = _signature(factory)
    if signature is not None and not _takes(signature, 2, ()):
        return f"{shown}{_plain(signature)} can't be called as {shown}(root, options)"
    return None


def class_problem(found: type[Any]) -> str | None:
    """Say how a driver's class breaks the interface; None if it doesn't."""
    if not issubclass(found, Driver):
        return f"{found.__name__} is no subclass of cowshed.driver.Driver"
    abstract: frozenset[str] = getattr(found, "__abstractmethods__", frozenset[str]())
    missing = sorted(abstract)
    if missing:
        return f"{found.__name__} lacks {' and '.join(missing)}"
    for name, wanted in vars(Driver).items():
        if not name.startswith("_") and inspect.isfunction(wanted):
            if _same_shape(inspect.getattr_static(found, name), wanted):
                continue
            problem = _method_problem(found, name, inspect.signature(wanted))
            if problem:
                return problem
    return None


def _same_shape(method: object, wanted: FunctionType) -> bool:
    """Say whether it takes what ``wanted`` does by the looks of its code.

    That is so for nearly every method, and to compose and bind their signatures takes longer than
    to open the driver.
    """
    if not isinstance(method, FunctionType) or hasattr(method, "__wrapped__"):
        return False
    code, other = method.__code__, wanted.__code__
    count = other.co_argcount + other.co_kwonlyargcount
    return (
        not code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR)
        and not hasattr(method, "__signature__")
        and code.co_posonlyargcount == 0
        and code.co_argcount == other.co_argcount
        and code.co_kwonlyargcount == other.co_kwonlyargcount
        and code.co_varnames[:count] == other.co_varnames[:count]
        and len(method.__defaults__ or ()) >= len(wanted.__defaults__ or ())
        and (method.__kwdefaults__ or {}).keys() >= (wanted.__kwdefaults__ or {}).keys()
    )


def _method_problem(found: type[Driver], name: str, wanted: inspect.Signature) -> str | None:
    shown = f"{found.__name__}.{name}"
    method: object = getattr(found, name)
    if not callable(method):
        return f"{shown} is {method!r:.100}, not a method"
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        return f"{shown} is async; core calls it as a plain method"
    signature = _signature(method)
    if signature is None:
        return None
    static = inspect.getattr_static(found, name)
    bound = isinstance(static, (staticmethod, classmethod))
    parameters = list(wanted.parameters.values())[1 if bound else 0 :]
    positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    required = [one for one in positional if one.default is one.empty]
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    if _takes(signature, len(required), ()) and _takes(signature, len(positional), keywords):
        return None
    wanted = wanted.replace(parameters=parameters)
    return f"{shown}{_plain(signature)} can't be called as {name}{_plain(wanted)}"


def _takes(signature: inspect.Signature, positional: int, keywords: Iterable[str]) -> bool:
    try:
        signature.bind(*[None] * positional, **dict.fromkeys(keywords))
    except TypeError:
        return False
    return True


def _signature(found: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except (TypeError, ValueError):
        return None  # written in C, without a text signature


def _plain(signature: inspect.Signature) -> str:
    """Return a signature without its annotations, which are mostly noise in an error."""
    parameters = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


# -- the driver --------------------------------------------------------------------------------


def open_driver(spec: DriverSpec, root: Path, options: Any, *, durable: bool = True) -> Driver:
    """Open a driver on its own directory, which exists.

    Raises:
        DriverError: it can't be imported, can't be opened, or breaks the interface.
    """
    factory = load_driver(spec)
    try:
        driver = cast(object, factory(root, options))
    except (CowshedError, OSError):
        raise
    except ANYTHING as error:
        raise DriverError(spec.name, f"can't be opened: {describe(error)}") from error
    if not isinstance(driver, Driver):
        raise DriverError(spec.name, f"its factory returned {driver!r:.100}, which is no Driver")
    # A factory needn't be a class: what it returned is looked at as its class would have been.
    problem = None if type(driver) is factory else class_problem(type(driver))
    if problem:
        raise DriverError(spec.name, problem)
    try:
        driver.durable = durable
    except ANYTHING as error:
        raise DriverError(spec.name, f"its durable can't be set: {describe(error)}") from error
    return driver


def describe(error: BaseException) -> str:
    """Return an exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
