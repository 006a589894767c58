"""Small random programs that can be run, and edits of them: some keep their meaning, some do not.

A program is a list of functions; a function is a name and a block; a block is a list of
statements; a statement is its first line and, if it has any, the blocks below with their headers.
"""

from __future__ import annotations

import random
import re
from copy import deepcopy
from dataclasses import dataclass, field

LOCALS = ("alpha", "beta", "gamma", "delta")


@dataclass
class Statement:
    """A line, and for a compound statement its blocks as (header, statements)."""

    text: str
    blocks: list[tuple[str, list[Statement]]] = field(default_factory=list)


@dataclass
class Function:
    """A function of one argument, `x`."""

    name: str
    body: list[Statement]


Program = list[Function]


class Writer:
    """Writes programs; with `risky`, words of strings, keywords and attributes are locals' too."""

    def __init__(self, seed: int, *, risky: bool) -> None:
        self.random = random.Random(seed)
        self.risky = risky

    def program(self) -> Program:
        return [Function(f"work_{n}", self._function(n)) for n in range(self.random.randint(2, 4))]

    def _function(self, number: int) -> list[Statement]:
        first = [Statement(f"{name} = x + {n}") for n, name in enumerate(LOCALS)]
        self._known = [f"work_{n}" for n in range(number)]
        last = Statement(f"return {' + '.join(self.random.sample(LOCALS, 2))}")
        return [*first, *self._block(self.random.randint(3, 7), 0), last]

    def _block(self, size: int, depth: int) -> list[Statement]:
        return [self._statement(depth) for _ in range(size)]

    def _statement(self, depth: int) -> Statement:
        name, other, third = (self.random.choice(LOCALS) for _ in range(3))
        number, sign = self.random.randint(1, 9), self.random.choice("+-*")
        simple = [
            f"{name} = {other} {sign} {number}",
            f"{name} = low({other}, {third}, {number})",
            f"{name} = high({other}, {third}, {number})",
            f"{name}, {other} = {other}, {third} + {number}",
            f"{name} {sign}= {number}",
            f"emit({name})",
            f"emit({other}, {number})",
            f"emit(sum([{third} + {name} for {third} in range({number})]))",
            f"emit([{other} for item in range({number})])",
            f"emit((lambda y: y + {other})({number}))",
            f"emit(f'{{{name}}} is {{{other}}}')",
        ]
        if self.risky:
            simple += [
                f"emit({name}={other})",
                f"emit({{'{name}': {other}}}['{name}'])",
                f"box.{name} = {other}",
                f"emit(getattr(box, '{name}', {number}))",
                f"emit(f'{{{name}=}}')",
                f"emit(sorted(locals())[{number} % 4])",
                f"emit(eval('{name}'))",
            ]
        if self._known:
            simple.append(f"{name} = {self.random.choice(self._known)}({other} % 5)")
        if depth > 2 or self.random.random() < 0.65:
            return Statement(self.random.choice(simple))
        return self._compound(depth, name, number)

    def _compound(self, depth: int, name: str, number: int) -> Statement:
        def block() -> list[Statement]:
            return self._block(self.random.randint(1, 4), depth + 1)

        kind = self.random.randrange(5)
        if kind == 0:
            return Statement(f"if {name} % 2:", [("else:", block())])
        if kind == 1:
            return Statement(f"for step in range({number % 4}):", [("", block())])
        if kind == 2:
            return Statement("try:", [("finally:", block())])
        if kind == 3:
            return Statement(f"if {name} > {number}:", [("", block())])
        return Statement(f"for step in range({number % 3}):", [("else:", block())])


def render(program: Program) -> str:
    """The source. A block after an `else:` or `finally:` repeats the statement's own block."""
    texts = []
    for function in program:
        lines = [f"def {function.name}(x):"]
        _lines(function.body, 1, lines)
        texts.append("\n".join(lines) + "\n")
    names = ", ".join(f"{function.name}(3)" for function in program)
    return "\n\n".join([*texts, f"emit({names})\n"])


def _lines(block: list[Statement], depth: int, lines: list[str]) -> None:
    for statement in block:
        lines.append("    " * depth + statement.text)
        for header, body in statement.blocks:
            if header:
                half = max(1, len(body) // 2)
                _lines(body[:half], depth + 1, lines)
                lines.append("    " * depth + header)
                _lines(body[half:] or [Statement("pass")], depth + 1, lines)
            else:
                _lines(body, depth + 1, lines)


def outcome(source: str) -> list[str]:
    """What a program emits, and how it ends."""
    seen: list[str] = []
    calls = 0

    def emit(*values: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 300:
            raise InterruptedError
        seen.append(repr((values, named)))

    def low(*values: int) -> int:
        return min(values) % 97

    def high(*values: int) -> int:
        return max(values) % 89

    class Box:
        pass

    names = {"emit": emit, "low": low, "high": high, "box": Box()}
    try:
        exec(compile(source, "program", "exec", dont_inherit=True), names)
    except SyntaxError:
        raise
    except Exception as error:
        seen.append(type(error).__name__)
    return seen


# -- edits that may change what a program does ---------------------------------------------------


def blocks(program: Program) -> list[list[Statement]]:
    """All blocks of a program."""
    found = [function.body for function in program]
    for block in found:
        found += [body for statement in block for _, body in statement.blocks]
    return found


def edited(program: Program, rng: random.Random) -> str:
    """The source after one to three edits, each of which may change what the program does."""
    program = deepcopy(program)
    edits = rng.randint(1, 3)
    of_words = sum(rng.random() < 0.25 for _ in range(edits))
    for _ in range(edits - of_words):
        rng.choice([_swap, _swap_runs, _outward, _inward, _wrap, _order])(program, rng)
    source = render(program)
    for _ in range(of_words):
        source = rng.choice([_rename, _replace])(source, rng)
    return source


def _swap(program: Program, rng: random.Random) -> None:
    block = rng.choice(blocks(program))
    if len(block) > 1:
        n = rng.randrange(len(block) - 1)
        block[n], block[n + 1] = block[n + 1], block[n]


def _swap_runs(program: Program, rng: random.Random) -> None:
    block = rng.choice(blocks(program))
    size = rng.randint(2, 4)
    if len(block) >= 2 * size:
        n = rng.randrange(len(block) - 2 * size + 1)
        block[n : n + 2 * size] = block[n + size : n + 2 * size] + block[n : n + size]


def _outward(program: Program, rng: random.Random) -> None:
    """The last statements of a block go behind the statement that has it."""
    places = [
        (block, n, body)
        for block in blocks(program)
        for n, statement in enumerate(block)
        for _, body in statement.blocks
        if len(body) > 1
    ]
    if places:
        block, n, body = rng.choice(places)
        cut = rng.randrange(1, len(body))
        block[n + 1 : n + 1] = body[cut:]
        del body[cut:]


def _inward(program: Program, rng: random.Random) -> None:
    """Statements behind a compound one go to the end of its block."""
    places = [
        (block, n)
        for block in blocks(program)
        for n, statement in enumerate(block[:-1])
        if statement.blocks and not block[n + 1].text.startswith("return")
    ]
    if places:
        block, n = rng.choice(places)
        block[n].blocks[-1][1].append(block.pop(n + 1))


def _wrap(program: Program, rng: random.Random) -> None:
    block = rng.choice(blocks(program))
    first = rng.randrange(len(block))
    last = rng.randint(first + 1, len(block))
    header = rng.choice(["if x % 2:", "for turn in range(2):", "if x > 100:"])
    block[first:last] = [Statement(header, [("", block[first:last])])]


def _order(program: Program, rng: random.Random) -> None:
    rng.shuffle(program)


def _rename(source: str, rng: random.Random) -> str:
    """A word replaced throughout, or in one function, whatever it stands for."""
    old = rng.choice([*LOCALS, "low", "x", "step", "work_0"])
    new = {"low": "high", "work_0": "work_1"}.get(old) or rng.choice(["omega", *LOCALS])
    parts = source.split("\n\n\n")
    chosen = set(rng.sample(range(len(parts)), rng.randint(1, len(parts))))
    pattern = re.compile(rf"\b{old}\b")
    return "\n\n\n".join(
        pattern.sub(new, part) if n in chosen else part for n, part in enumerate(parts)
    )


def _replace(source: str, rng: random.Random) -> str:
    """One token replaced by another."""
    places = list(re.finditer(r"(?<= )[-+](?= )|\b\d\b|\blow\b|\balpha\b|\bbeta\b", source))
    if not places:
        return source
    place = rng.choice(places)
    new = {"+": "-", "-": "+", "low": "high", "alpha": "beta", "beta": "gamma"}
    text = new.get(place[0]) or str((int(place[0]) + 1) % 10)
    return source[: place.start()] + text + source[place.end() :]


# -- edits that change nothing -------------------------------------------------------------------


def reworded(program: Program, rng: random.Random) -> str:
    """The source with new names for the variables of some functions, and another layout."""
    program = deepcopy(program)
    for function in program:
        if rng.random() < 0.7:
            old = rng.choice(LOCALS)
            new = rng.choice(["omega", "sigma", "first_value"])
            for block in [function.body, *blocks([function])[1:]]:
                for statement in block:
                    statement.text = re.sub(rf"\b{old}\b", new, statement.text)
    lines = []
    for line in render(program).splitlines():
        if rng.random() < 0.2 and (call := re.fullmatch(r"( *)emit\((\w+), (\w+)\)", line)):
            indent, first, second = call.groups()
            lines.append(f"{indent}emit(\n{indent}    {first},\n{indent}    {second},\n{indent})")
        elif rng.random() < 0.1 and line.startswith("    ") and "if" not in line:
            lines += [line, ""] if ":" not in line else [line]
        else:
            lines.append(line.replace("'", '"') if rng.random() < 0.5 else line)
    return "\n".join(lines) + "\n"
