"""The functions that are tasks, by name."""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, TypeVar, overload

F = TypeVar("F", bound=Callable[..., Any])

#: Name of a task -> its function.
registered: Dict[str, Callable[..., Any]] = {}


@overload
def task(function: F) -> F: ...


@overload
def task(*, name: Optional[str] = None) -> Callable[[F], F]: ...


def task(function: Optional[F] = None, *, name: Optional[str] = None) -> Any:
    """Make a function (or a coroutine function) a task.

    Its name is ``name``, else ``module.function``. The function itself is not changed: it can be called
    and tested as before.

    :raises ValueError: another function has this name already.
    """

    def register(made: F) -> F:
        known_as = name or f"{made.__module__}.{made.__qualname__}"
        other = registered.get(known_as)
        if other is not None and (other.__module__, other.__qualname__) != (made.__module__, made.__qualname__):
            raise ValueError(f"two tasks have the name {known_as!r}: {other!r} and {made!r}")
        registered[known_as] = made
        return made

    return register if function is None else register(function)
