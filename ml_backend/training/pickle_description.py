"""Follows the instructions of a pickle without doing what they say.

Unpickling runs whatever a file asks for. This reads the few instructions that dictionaries of
arrays, texts and numbers need, one after the other, and builds plain descriptions of what they
say: nothing is looked up, called or made. Anything else is refused by name. Long runs of bytes
stay in the file until somebody asks for them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final

from ml_backend.errors import ImageDecodeError, ImageTooLarge

MOST_INSTRUCTIONS: Final = 5_000_000
LONGEST_LINE: Final = 10_000  # bytes
LEFT_IN_FILE: Final = 4096  # bytes; longer runs of bytes are not kept in memory

_MARK: Final = object()
_CONSTANTS: Final[Mapping[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS: Final = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "INT"})
_TEXTS: Final = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
_BYTES: Final[Mapping[str, int]] = {  # bytes of the instruction before the content
    "SHORT_BINBYTES": 2,
    "BINBYTES": 5,
    "BINBYTES8": 9,
}
_NUMPY: Final = ("numpy.core.multiarray", "numpy._core.multiarray")
_PATHS: Final = ("pathlib", "pathlib._local")


@dataclass(frozen=True)
class Blob:
    """Bytes that are still in the file."""

    start: int
    size: int


@dataclass
class StoredType:
    """What a number type is called, as NumPy writes it: "u2" and "<"."""

    code: str
    order: str = "="


@dataclass
class StoredArray:
    """An array as it is described in a file."""

    shape: tuple[int, ...] = ()
    kind: StoredType | None = None
    columns_first: bool = False
    content: Any = field(default=None, repr=False)  # bytes, a Blob, or a list of objects


@dataclass(frozen=True)
class _Name:
    """Something that the file calls by its name; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def describe_pickle(file: IO[bytes], size: int, name: str) -> Any:
    """Return what a pickle describes: dictionaries, lists, texts, numbers and `StoredArray`.

    Args:
        file: at the beginning of the pickle.
        size: of the whole file, bytes.
        name: of the file, for messages.

    Raises:
        ImageDecodeError: it asks for anything else.
        ImageTooLarge: it says too much.
        ValueError, LookupError, TypeError, EOFError, OverflowError: it is damaged.
    """
    return _Reading(name).run(_Bounded(file, size))


class _Bounded:
    """A file that is never asked for more than it has: lengths in a file may be lies."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline(LONGEST_LINE)

    def tell(self) -> int:
        return self._file.tell()


class _Reading:
    """The instructions of one file, followed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, file: _Bounded) -> Any:
        """Return what the instructions leave behind."""
        for count, (instruction, argument, at) in enumerate(_instructions(file)):
            if count >= MOST_INSTRUCTIONS:
                raise ImageTooLarge(f"{self._name} holds too many objects to be masks.")
            name = instruction.name
            if name == "STOP":
                (whole,) = self._stack
                return whole
            self._follow(name, argument, at)
        raise EOFError("it ends too early")

    def _follow(self, name: str, argument: Any, at: int) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _BYTES:
            is_long = len(argument) > LEFT_IN_FILE
            stack.append(Blob(at + _BYTES[name], len(argument)) if is_long else argument)
        elif name in _BUILDERS:
            _BUILDERS[name](self, argument)
        else:
            raise ImageDecodeError(
                f"{self._name} holds the pickle instruction {name}, which no masks need; it was "
                "not read. Save it with Cellpose again, or its masks as a TIFF file."
            )

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def put(self, number: Any) -> None:
        self._memo[int(number)] = self._stack[-1]

    def get(self, number: Any) -> None:
        self._stack.append(self._memo[int(number)])

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def empty_list(self, _: Any) -> None:
        self._stack.append([])

    def tuple_of(self, count: int) -> None:
        taken = self._stack[len(self._stack) - count :] if count else []
        if len(taken) != count:
            raise IndexError("too few objects")
        del self._stack[len(self._stack) - count :]
        self._stack.append(tuple(taken))

    def tuple_since_mark(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def append(self, _: Any) -> None:
        value = self._stack.pop()
        self._expect(list).append(value)

    def appends(self, _: Any) -> None:
        values = self._since_mark()
        self._expect(list).extend(values)

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        self._set(self._since_mark())

    def name_of(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._known(_Name(module, name)))

    def name_on_stack(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._known(_Name(str(module), str(name))))

    def call(self, _: Any) -> None:
        """Describe what a call would make; nothing is called."""
        arguments, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of nothing")
        made: Any
        if called.name == "_reconstruct":
            made = StoredArray()
        elif called.name == "dtype":
            made = StoredType(str(arguments[0]))
        elif called.name == "scalar":
            made = None  # a single number, which no mask is made of
        elif called.module in _PATHS:
            made = "/".join(map(str, arguments))
        else:
            raise self._refuse(called)
        self._stack.append(made)

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        made = self._stack[-1]
        if isinstance(made, StoredArray):
            _, made.shape, made.kind, made.columns_first, made.content = state
            if not isinstance(made.shape, tuple) or not isinstance(made.kind, StoredType):
                raise TypeError("an array without a shape")
        elif isinstance(made, StoredType):
            made.order = str(state[1])
        else:
            raise TypeError("a state of nothing")

    def _known(self, name: _Name) -> _Name:
        is_numpys = name.module in _NUMPY and name.name in ("_reconstruct", "scalar")
        is_type = name.module == "numpy" and name.name in ("ndarray", "dtype")
        is_path = name.module in _PATHS and name.name.endswith("Path")
        if is_numpys or is_type or is_path:
            return name
        raise self._refuse(name)

    def _refuse(self, name: _Name) -> ImageDecodeError:
        return ImageDecodeError(
            f"{self._name} asks for {str(name)[:80]!r}, which no masks are made of; it was not "
            "read and nothing in it was run. Save it with Cellpose again, or its masks as a TIFF "
            "file."
        )

    def _since_mark(self) -> list[Any]:
        stack = self._stack
        for index in range(len(stack) - 1, -1, -1):
            if stack[index] is _MARK:
                taken = stack[index + 1 :]
                del stack[index:]
                return taken
        raise IndexError("no mark")

    def _set(self, pairs: list[Any]) -> None:
        target = self._expect(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str | int | float | bool | None):
                raise TypeError("a key that is no text")
            target[key] = value

    def _expect(self, kind: type[Any]) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise TypeError(f"no {kind.__name__}")
        return self._stack[-1]


_BUILDERS: Final[Mapping[str, Callable[[_Reading, Any], None]]] = {
    "MEMOIZE": _Reading.memoize,
    "BINPUT": _Reading.put,
    "LONG_BINPUT": _Reading.put,
    "BINGET": _Reading.get,
    "LONG_BINGET": _Reading.get,
    "MARK": _Reading.mark,
    "EMPTY_DICT": _Reading.empty_dict,
    "EMPTY_LIST": _Reading.empty_list,
    "EMPTY_TUPLE": lambda reading, _: reading.tuple_of(0),
    "TUPLE1": lambda reading, _: reading.tuple_of(1),
    "TUPLE2": lambda reading, _: reading.tuple_of(2),
    "TUPLE3": lambda reading, _: reading.tuple_of(3),
    "TUPLE": _Reading.tuple_since_mark,
    "APPEND": _Reading.append,
    "APPENDS": _Reading.appends,
    "SETITEM": _Reading.set_item,
    "SETITEMS": _Reading.set_items,
    "GLOBAL": _Reading.name_of,
    "STACK_GLOBAL": _Reading.name_on_stack,
    "REDUCE": _Reading.call,
    "BUILD": _Reading.build,
}


def _instructions(file: _Bounded) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int]]:
    for instruction, argument, at in pickletools.genops(file):  # type: ignore[arg-type]
        yield instruction, argument, at or 0
