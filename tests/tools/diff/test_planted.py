"""Changes of behaviour that look like renames, moves or layout: none may be 0 substantive."""

import ast
import textwrap

import pytest

from tools.common.files import File
from tools.diff import names
from tools.diff.compare_trees import compare
from tools.diff.read_trees import Source

# Each case: a name, the old source, and replacements that make the new one.
LOCAL = """
    def step(x, s):
        alpha = make(x)
        check(alpha)
        {}
        return alpha * s
    """
BLOCKS = """
    def block(x, attn, mlp):
        normed = attn.norm(x, scale=attn.scale)
        mixed = attn.project(normed, heads=attn.heads)
        x = attn.residual(x, mixed, dropout=attn.dropout)
        x = barrier(x)
        widened = mlp.norm(x, scale=mlp.scale)
        hidden = mlp.activation(widened, width=mlp.width)
        x = mlp.residual(x, hidden, dropout=mlp.dropout)
        return x
    """
FILES = """
    def save(store, rows):
        store.write_header(rows, version=3)
        store.write_rows(rows, compressed=True)
        store.write_footer(rows, checksum=True)
        store.flush_everything(now=True)
        store.close_index(wait_for_it=True)
        store.close_rows(wait_for_it=True)
        store.close_everything(wait_for_it=True)
    """
LOOP = """
    def train(steps, model):
        for step in steps:
            model.update(step)
            model.record(step)
            model.evaluate(step)
            model.publish(step)
        return model
    """
BRANCH = """
    def choose(x, cond):
        if cond:
            x = first(x)
        else:
            x = second(x)
            x = third(x)
            x = fourth(x)
            x = fifth(x)
        return x
    """
NESTED = """
    def outer(x):
        alpha = make(x)
        def inner(y):
            {}
            alpha = y + 1
            return alpha
        inner(alpha)
        return alpha
    """


def renamed(extra, old="alpha", new="beta", around=LOCAL):
    """A pair in which every occurrence of a word is replaced, whatever it stands for."""
    source = around.format(extra)
    return source, source.replace(old, new)


def stays(line, first=""):
    """A pair in which a function's variable is renamed, but not in the lines given."""
    old = f"def f(x, frame):\n{first}    alpha = x\n    a(alpha)\n{line}    return alpha\n"
    new = f"def f(x, frame):\n{first}    beta = x\n    a(beta)\n{line}    return beta\n"
    return old, new


def bound_by(statement, indent="        "):
    """A pair in which a name stays where a statement binds it, and is another in its block."""
    old, new = (f"{indent}    a({name})\n{indent}    b({name})\n" for name in ("alpha", "beta"))
    return f"def f(x):\n    {statement}\n{old}", f"def f(x):\n    {statement}\n{new}"


def swapped(source, first, second):
    """A pair in which two runs of lines (counted from 1) change places."""
    lines = textwrap.dedent(source).splitlines(keepends=True)
    (a, b), (c, d) = first, second
    new = lines[:a] + lines[c:d] + lines[b:c] + lines[a:b] + lines[d:]
    return "".join(lines), "".join(new)


def replaced(source, *replacements):
    new = source
    for before, after in replacements:
        assert before in new
        new = new.replace(before, after)
    return source, new


def dedented(source, *starts):
    """A pair in which the lines that begin so stand one level further out."""
    old = textwrap.dedent(source)
    new = [
        line.removeprefix("    ") if line.strip().startswith(starts) else line
        for line in old.splitlines(keepends=True)
    ]
    return old, "".join(new)


PADDING = "".join(f"PAD_{n} = {n}\n" for n in range(12))
FUNCTION = "def {}({}):\n    first_number = 1\n    second = 2\n    return first_number + second\n"


def passing(between, before="", after="", parameters="", name="f"):
    """A pair in which a function moves past statements that are longer than it."""
    function, rest = FUNCTION.format(name, parameters), f"{between}{PADDING}"
    return f"{before}{function}{rest}{after}", f"{before}{rest}{function}{after}"


def within(header, between, after="", parameters="self", name="f"):
    """The same in the body of a class."""
    pair = passing(between, parameters=parameters, name=name)
    return tuple(f"{header}\n{textwrap.indent(text, '    ')}{after}" for text in pair)


CASES = {
    # -- what a function passes
    "over an import that imports this module": passing("import other\n"),
    "over an import of this module": passing("import me\nme.f()\n"),
    "over the docstring": passing('"""Text."""\n', after="print(__doc__)\n")[::-1],
    "over a class's docstring": within("class A:", '"""Text."""\n', "print(A.__doc__)\n")[::-1],
    "over a change of its default": passing(
        "os.environ['A'] = 'x'\n", "import os\n", parameters="a=os.environ['A']"
    ),
    "over a change of an imported default": passing(
        "cfg.lr = 3\n", "from settings import cfg\n", parameters="a=cfg.lr"
    ),
    "over a call that changes its default": passing(
        "set_lr()\n",
        "LR = 1\n\n\ndef set_lr():\n    global LR\n    LR = 2\n\n\n",
        parameters="a=LR",
    ),
    "over members of an enumeration": within(
        "class C(Enum):",
        "".join(f"C{n} = auto()\n" for n in range(12)),
        parameters="a, b, c, d",
        name="_generate_next_value_",
    ),
    **{
        f"over {call}": passing(f"{call}\n", "def g():\n    return 1\n\n\n")
        for call in (
            "pickle.loads(data)",
            "g.__globals__['f']()",
            "inspect.getmodule(g).f()",
            "pkgutil.resolve_name('__main__:f')()",
            "getattr(sys, 'modules')[__name__].f()",
            "unittest.main(exit=False)",
            "typing.get_type_hints(g)",
        )
    },
    "over a call of what a class mangles": passing(
        "class A:\n    def m(self):\n        return __f()\n\n\nA().m()\n", name="_A__f"
    ),
    "in a class whose metaclass sees each name": within("class A(metaclass=M):", ""),
    "over a class with a base": passing("class C(Base):\n    x: 'f'\n"),
    "over one whose default acts": passing(
        "def g(b=counter.next):\n    return b\n", parameters="a=counter.next"
    ),
    # -- names that are no local of the source's own, or that others can see
    "local holds another function": replaced(
        "def f(x):\n    relu = jax.nn.relu(x)\n    a(relu)\n    b(relu)\n    return relu\n",
        ("relu", "gelu"),
    ),
    "module's name holds another function": replaced(
        "adam = optax.adam(1e-3)\na(adam)\nb(adam)\nc(adam)\n", ("adam", "lion")
    ),
    "dictionary key": renamed('cfg = {"alpha": alpha}'),
    "keyword argument": renamed("f(alpha=alpha)"),
    "keyword of a dict": renamed("cfg = dict(alpha=alpha, b=1)"),
    "attribute of a parameter": renamed("s.alpha = alpha"),
    "attribute that is read": renamed("check(alpha, s.alpha)"),
    "f-string that names itself": renamed('print(f"{alpha=}")'),
    "f-string text": renamed('print(f"alpha {alpha}")'),
    "string of getattr": renamed('getattr(s, "alpha")(alpha)'),
    "string of a format": renamed('print("%(alpha)s" % locals())'),
    "locals": renamed("return locals()"),
    "eval": renamed('eval("alp" + "ha")'),
    "exec": renamed('exec("print(alp" "ha)")'),
    "vars": renamed("save(vars())"),
    "comment": renamed("pass  # alpha"),
    "global": renamed(
        "global gamma", around=LOCAL.replace("alpha =", "global alpha\n        alpha =")
    ),
    "nonlocal": renamed("nonlocal alpha", around=NESTED),
    "import": renamed("import alpha.beta as gamma"),
    "import from": renamed("from package import alpha"),
    "module attribute": renamed("import package.alpha as p"),
    "local import": replaced(
        "def f(x):\n    import numpy\n    a(numpy)\n    b(numpy)\n    return numpy.sum(x)\n",
        ("numpy", "torch"),
    ),
    "local function's name": replaced(
        "def f(x):\n    def old_name(y):\n        return y\n    a(old_name)\n    return old_name\n",
        ("old_name", "new_name"),
    ),
    "local class's name": replaced(
        "def f(x):\n    class Old:\n        y = 1\n    a(Old)\n    return Old\n", ("Old", "New")
    ),
    "class attribute": replaced(
        "class C:\n    alpha = 1\n    b = alpha\n    c = alpha + 1\n    d = alpha\n",
        ("alpha", "beta"),
    ),
    "class attribute read by others": replaced(
        "class C:\n    alpha: int = 1\n\n\ndef f(c: C):\n    return c.alpha + c.alpha + C.alpha\n",
        ("alpha", "beta"),
    ),
    "method": replaced(
        "class C:\n    def old(self):\n        return 1\n\n    def f(self):\n"
        "        return self.old() + self.old() + self.old()\n",
        ("old", "new"),
    ),
    "instance attribute": replaced(
        "class C:\n    def __init__(self):\n        self.alpha = 1\n\n    def f(self):\n"
        "        return self.alpha + self.alpha + self.alpha\n",
        ("alpha", "beta"),
    ),
    "module constant": replaced(
        "ALPHA = 1\n\n\ndef f(x):\n    return ALPHA + ALPHA * ALPHA\n", ("ALPHA", "BETA")
    ),
    "module function": replaced(
        "def alpha(x):\n    return x\n\n\ndef f(x):\n    return alpha(x) + alpha(x) * alpha(x)\n",
        ("alpha", "beta"),
    ),
    "__all__": replaced(
        "__all__ = ['alpha']\nalpha = 1\nbeta2 = alpha + alpha\nc = alpha\n", ("alpha", "beta")
    ),
    "parameter that callers name": replaced(
        "def f(alpha, x):\n    a(alpha)\n    b(alpha)\n    return alpha + x\n", ("alpha", "beta")
    ),
    "keyword-only parameter": replaced(
        "def f(*, alpha):\n    a(alpha)\n    b(alpha)\n    return alpha\n", ("alpha", "beta")
    ),
    "parameter of a lambda": replaced(
        "def f(x):\n    g = lambda alpha: alpha + alpha * alpha\n    return g(x)\n",
        ("alpha", "beta"),
    ),
    "parameter and its keyword": replaced(
        "def f(alpha):\n    return alpha * alpha\n\n\ndef g(x):\n    return f(alpha=x)\n",
        ("alpha", "beta"),
    ),
    "mangled name": replaced(
        "class C:\n    def f(self, x):\n        __alpha = x\n        a(__alpha)\n"
        "        b(__alpha)\n"
        "        return self._C__alpha\n",
        ("alpha", "beta"),
    ),
    "name that an inner scope reads from the module": replaced(
        "def f(x):\n    alpha = x\n    a(alpha)\n    return [alpha for y in alpha if beta]\n",
        ("alpha", "beta"),
    ),
    "name captured by a comprehension": replaced(
        "def f(x, beta):\n    return [alpha + beta + alpha for alpha in x if alpha]\n",
        ("alpha", "beta"),
    ),
    "name of the enclosing function": replaced(
        "def f(beta):\n    def g(x):\n        alpha = x\n        a(alpha, beta)\n        b(alpha)\n"
        "        return alpha\n    return g\n",
        ("alpha", "beta"),
    ),
    "class body in a function": replaced(
        "def f(x):\n    alpha = x\n    class C:\n        alpha = alpha\n    a(alpha)\n"
        "    return alpha, C\n",
        ("alpha", "beta"),
    ),
    "walrus out of a comprehension": replaced(
        "last = 0\nfound = [last := x for x in y]\nprint(last, last)\n", ("last", "most")
    ),
    "match of a class's keyword": renamed(
        "match s:\n            case Point(alpha=alpha):\n                pass"
    ),
    "match of a dotted name": renamed(
        "match s:\n            case alpha.one:\n                pass\n"
        "            case K.alpha:\n                pass"
    ),
    "match value turned capture": replaced(
        "def f(x):\n    match x:\n        case K.a:\n            return 1\n    return 2\n",
        ("K.a", "a"),
    ),
    "annotation in a string": renamed('y: "alpha" = alpha'),
    "type comment": replaced("x = []  # type: list[int]\n", ("int", "str")),
    "type comment on another line": replaced(
        "def f(b):\n    x = []  # type: list[int]\n    y = b\n    return (x)\n",
        ("  # type: list[int]", ""),
        ("y = b", "y = b  # type: list[int]"),
        ("(x)", "x"),
    ),
    # -- one place of a name stays as it was
    "a string that looks a variable up": stays("    frame.query('size > @alpha')\n"),
    "a global name": stays("", "    global alpha\n"),
    "a nonlocal name": replaced(
        "def f(x):\n    alpha = beta = x\n    def g():\n        nonlocal alpha\n"
        "        alpha = 1\n        return alpha\n    return g() + alpha + beta\n",
        ("        alpha = 1\n        return alpha\n", "        beta = 1\n        return beta\n"),
    ),
    "an import": stays("", "    import alpha\n"),
    "an import of a part": stays("", "    import alpha.part\n"),
    "an import under a name": stays("", "    from package import part as alpha\n"),
    "an exception": bound_by("try:\n        g(x)\n    except E as alpha:", "    "),
    "a captured name": bound_by("match x:\n        case [alpha]:"),
    "a captured rest": bound_by("match x:\n        case {1: y, **alpha}:"),
    "a captured star": bound_by("match x:\n        case [1, *alpha]:"),
    "a function": stays("", "    def alpha(): pass\n"),
    "a class": stays("", "    class alpha: pass\n"),
    "a parameter": (
        "def f(alpha):\n    a(alpha)\n    b(alpha)\n    return alpha\n",
        "def f(alpha):\n    a(beta)\n    b(beta)\n    return beta\n",
    ),
    "a type's parameter": (
        "def f[alpha](x):\n    a(alpha)\n    b(alpha)\n    return alpha\n",
        "def f[alpha](x):\n    a(beta)\n    b(beta)\n    return beta\n",
    ),
    "one of its uses": stays("    c(alpha)\n"),
    "to a name that the class mangles": (
        "class A:\n    def m(self):\n        y = 1\n        __x = 2\n        return y, y\n",
        "class A:\n    def m(self):\n        _A__x = 1\n        __x = 2\n"
        "        return _A__x, _A__x\n",
    ),
    "from a name that the class mangles": (
        "class A:\n    def m(self):\n        _A__x = 1\n        a(_A__x)\n"
        "        return __x, _A__x\n",
        "class A:\n    def m(self):\n        y = 1\n        a(y)\n        return __x, y\n",
    ),
    "in the body of a class": (
        "def f():\n    x = 1\n    class A(metaclass=M):\n        v = x\n    return A.v, x, x\n",
        "def f():\n    y = 1\n    class A(metaclass=M):\n        v = y\n    return A.v, y, y\n",
    ),
    **{
        f"a parameter {first}": (
            f"def f({first}):\n    a(old)\n    b(old)\n    return old\n",
            f"def f({first.replace('old', 'new')}):\n    a(new)\n    b(new)\n    return new\n",
        )
        for first in ("old, /", "*old", "**old", "*, old", "old")
    },
    "a lambda's parameter": (
        "f = lambda old, /: a(old, old)\n",
        "f = lambda new, /: a(new, new)\n",
    ),
    # -- names that are read in other ways than by a call of eval()
    **{
        f"read by {way}": renamed("show(names())", around=f"    {way}\n" + LOCAL)
        for way in (
            "names = locals",
            "names = builtins.vars",
            "from builtins import locals as names",
            "names = getattr(builtins, 'locals')",
            "names = lambda: sys._getframe(1).f_locals",
            "names = lambda: step.__code__.co_varnames",
            "names = lambda: inspect.getsource(step)",
            "names = lambda: inspect.currentframe().f_back.f_locals",
            "names = functools.partial(eval, text)",
            "names = lambda: [c.cell_contents for c in inner.__closure__]",
            "names = lambda: inspect.getargvalues(inspect.stack()[2].frame)[3]",
            "names = sys.setprofile",
        )
    },
    # -- order
    "blocks of attention and feed-forward swapped": swapped(BLOCKS, (2, 5), (6, 9)),
    "writes and closes swapped": swapped(FILES, (2, 5), (6, 9)),
    "module's statements swapped": swapped(
        "\nregister_writer(one, 'first name')\nregister_writer(two, 'second')\n"
        "register_writer(three, 'third')\nfinish_registration()\nregister_reader(one, 'first')\n"
        "register_reader(two, 'second name')\nregister_reader(three, 'third')\n",
        (1, 4),
        (5, 8),
    ),
    "two statements swapped": swapped(
        "\ndef f(x):\n    x = a(x)\n    x = b(x)\n    return x\n", (2, 3), (3, 4)
    ),
    "statement over one that it needs": swapped(
        "\ndef f(x):\n    y = compute_first(x)\n    z = compute_second(y)\n"
        "    w = compute_third(z)\n    return w\n",
        (2, 3),
        (3, 5),
    ),
    "a return moved up": swapped(
        "\ndef f(x):\n    a(x)\n    b(x)\n    c(x)\n    return x\n", (2, 5), (5, 6)
    ),
    "decorators swapped": swapped("\n@first\n@second\ndef f(x):\n    return x\n", (1, 2), (2, 3)),
    "decorator moved to another function": replaced(
        "@cache\ndef f(x):\n    return x\n\n\ndef g(x):\n    return x\n",
        ("@cache\n", ""),
        ("def g", "@cache\ndef g"),
    ),
    "decorator moved, registered order": swapped(
        "\n@register\nclass First:\n    value = 'a long first value'\n\n\n"
        "@register\nclass Second:\n    value = 'a long second value'\n\n\n",
        (1, 6),
        (6, 11),
    ),
    "default that a statement changes": swapped(
        "\nsize = 1\n\n\ndef first(x=size):\n    y = x + 1\n    return y\n\n\nsize = 2\n\n\n",
        (4, 9),
        (9, 12),
    ),
    "class over its base": swapped(
        "\nclass Base:\n    first_value = 1\n    second_value = 2\n\n\n"
        "class Derived(Base):\n    third_value = 3\n    fourth_value = 4\n\n\n",
        (1, 6),
        (6, 11),
    ),
    "function over the statement that calls it": swapped(
        "\ndef first(x):\n    y = x + 1\n    return y\n\n\ntable = first(2)\n\n\n", (1, 6), (6, 9)
    ),
    "function over one that calls it later on": swapped(
        "\ndef helper(x):\n    return low(x) + 1\n\n\n"
        "def low(x):\n    y = x + 1\n    return y\n\n\ntable = helper(2)\n\n\n",
        (5, 10),
        (10, 13),
    ),
    "function defined twice": swapped(
        "\ndef f(x):\n    first = x + 1\n    return first\n\n\n"
        "def f(x):\n    second = x + 2\n    return second\n\n\n",
        (1, 6),
        (6, 11),
    ),
    "fields of a class": swapped(
        "\n@dataclass\nclass Point:\n    first_field: int = 1\n    second_field: int = 2\n"
        "    third_field: int = 3\n    fourth_field: int = 4\n    fifth_field: int = 5\n"
        "    sixth_field: int = 6\n",
        (3, 6),
        (6, 9),
    ),
    "method to another class": replaced(
        "class A:\n    def method(self, x):\n        first = x + 1\n"
        "        return first * self.y\n\n"
        "    a = 1\n\n\nclass B:\n    b = 1\n",
        ("    def method(self, x):\n        first = x + 1\n        return first * self.y\n\n", ""),
        (
            "class B:\n",
            "class B:\n    def method(self, x):\n        first = x + 1\n"
            "        return first * self.y\n\n",
        ),
    ),
    "default arguments": replaced("def f(a=1, b=2):\n    return a\n", ("a=1, b=2", "b=2, a=1")),
    "keyword arguments that have effects": replaced(
        "f(a=g(), b=h())\n", ("a=g(), b=h()", "b=h(), a=g()")
    ),
    "two with items": replaced(
        "def f():\n    with one() as a, two() as b:\n        g(a, b)\n",
        ("one() as a, two() as b", "two() as b, one() as a"),
    ),
    "two with statements": (
        "def f():\n    with one():\n        with two():\n            g()\n",
        "def f():\n    with two():\n        with one():\n            g()\n",
    ),
    "an await": replaced(
        "async def f(a):\n    x = await a.first()\n    y = a.second()\n    return x, y\n",
        ("x = await a.first()\n    y = a.second()", "y = a.second()\n    x = await a.first()"),
    ),
    "a yield": replaced(
        "def f(a):\n    yield a.first()\n    a.second()\n",
        ("yield a.first()\n    a.second()", "a.second()\n    yield a.first()"),
    ),
    "overlapping targets": replaced("i, x[i] = 1, 2\n", ("i, x[i]", "x[i], i")),
    "chained targets": replaced("x = x.next = y\n", ("x = x.next =", "x.next = x =")),
    "del": replaced(
        "def f(x):\n    a(x)\n    del x.y\n    b(x)\n", ("a(x)\n    del x.y", "del x.y\n    a(x)")
    ),
    "except clauses": swapped(
        "\ndef f():\n    try:\n        g()\n    except A as error:\n        a(error)\n"
        "    except B as error:\n        b(error)\n",
        (4, 6),
        (6, 8),
    ),
    "star imports": swapped("\nfrom first import *\nfrom second import *\n", (1, 2), (2, 3)),
    "imports with effects": swapped("\nimport first\nimport second\n", (1, 2), (2, 3)),
    "future imports": replaced(
        "from __future__ import annotations\nx: y = 1\n",
        ("from __future__ import annotations\n", ""),
    ),
    # -- nesting
    "out of a loop": dedented(LOOP, "model.evaluate", "model.publish"),
    "all but the first out of a loop": dedented(
        LOOP, "model.record", "model.evaluate", "model.publish"
    ),
    "out of an else": dedented(BRANCH, "x = third", "x = fourth", "x = fifth"),
    "a new if": replaced(LOOP, ("model.record", "if step:\n                model.record")),
    "a new if around all": (
        "def f(x):\n    a(x)\n    b(x)\n    c(x)\n    d(x)\n",
        "def f(x):\n    if x:\n        a(x)\n        b(x)\n        c(x)\n        d(x)\n",
    ),
    "an else that is gone": replaced(BRANCH, ("        else:\n", "")),
    "else of a loop": (
        "for x in y:\n    if x:\n        break\n    else:\n        f(x)\n        g(x)\n",
        "for x in y:\n    if x:\n        break\nelse:\n    f(x)\n    g(x)\n",
    ),
    "finally": (
        "try:\n    f()\nfinally:\n    g()\n    h()\n    i()\n",
        "try:\n    f()\nfinally:\n    g()\nh()\ni()\n",
    ),
    "a return out of a loop": dedented(
        "def f(x):\n    for y in x:\n        g(y)\n        h(y)\n        return y\n", "return"
    ),
    "a method out of its class": dedented(
        "class A:\n    x = 1\n    def f(self):\n        return self.x\n", "def f", "return"
    ),
    "out of a with": dedented(
        "with lock:\n    first(1)\n    second(2)\n    third(3)\n", "second", "third"
    ),
    # -- tokens
    "raw string": ("x = '\\n'\n", "x = r'\\n'\n"),
    "bytes": ("x = 'a'\n", "x = b'a'\n"),
    "f prefix": ("x = '{a}'\n", "x = f'{a}'\n"),
    "implicit concatenation": ("x = ['a', 'b']\n", "x = ['a' 'b']\n"),
    "concatenation over lines": ("x = [\n    'a',\n    'b',\n]\n", "x = [\n    'a'\n    'b',\n]\n"),
    "float": ("x = 1\n", "x = 1.0\n"),
    "negative zero": ("x = 0.0\n", "x = -0.0\n"),
    "bool": ("x = 1\n", "x = True\n"),
    "complex": ("x = 1.0\n", "x = 1.0j\n"),
    "a tuple": ("x = f(y)\n", "x = f(y),\n"),
    "a tuple in brackets": ("x = (y)\n", "x = (y,)\n"),
    "a subscript's tuple": ("x = y[a]\n", "x = y[a,]\n"),
    "a set": ("x = {}\n", "x = {*()}\n"),
    "normal form of a name": ("x = s.ﬁ\ny = 's.ﬁ'\n", "x = s.fi\ny = 's.ﬁ'\n"),
    "brackets of an operator": ("x = a - b - c\n", "x = a - (b - c)\n"),
    "brackets of a comparison": ("x = a < b < c\n", "x = (a < b) < c\n"),
    "line break in a string": ('x = """a\n    b"""\n', 'x = """a\n  b"""\n'),
    "a docstring that is read": replaced(
        'def f():\n    """one\n    two"""\n    return f.__doc__\n', ("one\n    two", "one\n  two")
    ),
    "a docstring that is moved": replaced(
        'def f():\n    """one"""\n    x = 1\n    return x\n',
        ('"""one"""\n    x = 1', 'x = 1\n    """one"""'),
    ),
    "a string's continuation": ("x = 'a\\\n  b'\n", "x = 'a\\\nb'\n"),
    "semicolon in a block": ("if x:\n    a(); b()\n", "if x: a()\nb()\n"),
    "unary operator at the end": ("x = (a\n     -b)\n", "x = (a,\n     -b)\n"),
}


def substantive(old, new):
    """The number of substantive lines of a pair of sources, or of a pair of trees."""
    sides = [s if isinstance(s, dict) else {"a.py": textwrap.dedent(s)} for s in (old, new)]
    before, after = (
        Source("", {path: File(text.encode()) for path, text in side.items()}) for side in sides
    )
    counts = compare(before, after).substantive
    return counts.added + counts.deleted


@pytest.mark.parametrize(("old", "new"), CASES.values(), ids=CASES)
def test_a_change_of_behaviour_is_never_0_substantive(old, new):
    for text in (old, new):
        compile(textwrap.dedent(text), "planted", "exec", dont_inherit=True)
    assert old != new
    assert substantive(old, new) > 0
    # The lines themselves are: not only because a file with changes and without lines is doubted.
    ends = [f"{textwrap.dedent(text)}\n\nlast = '{n}'\n" for n, text in enumerate((old, new))]
    assert substantive(*ends) > 2


BODY = "def helper(x):\n    first = scale * x\n    return first + offset\n"
TREES = {
    "a function to a file where its names mean something else": (
        {
            "a.py": f"from k import scale, offset\n\n\n{BODY}",
            "b.py": "from m import scale, offset\n",
        },
        {
            "a.py": "from k import scale, offset\n",
            "b.py": f"from m import scale, offset\n\n\n{BODY}",
        },
    ),
    "a function out of the file from which others import it": (
        {"a.py": f"x = 1\n\n\n{BODY}", "b.py": "y = 1\n"},
        {"a.py": "x = 1\n", "b.py": f"y = 1\n\n\n{BODY}"},
    ),
    "lines of one configuration to another": (
        {"a.yaml": "one:\n  alpha_value: 1\n  beta_value: 2\n  gamma_value: 3\ntwo:\n  x: 1\n"},
        {"a.yaml": "one:\ntwo:\n  x: 1\n  alpha_value: 1\n  beta_value: 2\n  gamma_value: 3\n"},
    ),
    "lines of a script": (
        {
            "a.sh": "create_the_table one\nfill_the_table two\nread_the_table three\n"
            "rm -r everything\n"
        },
        {
            "a.sh": "rm -r everything\ncreate_the_table one\nfill_the_table two\n"
            "read_the_table three\n"
        },
    ),
    "keys of an object that is written twice": (
        {"a.json": '{"a": 1, "a": 2}\n'},
        {"a.json": '{"a": 2}\n'},
    ),
    "an object and a list of pairs": (
        {"a.json": '{"a": 1}\n'},
        {"a.json": '[["a", 1]]\n'},
    ),
    "line breaks of a prompt": (
        {"a.txt": "first line\nsecond line\n"},
        {"a.txt": "first line second line\n"},
    ),
    "a name in two files": (
        {"a.py": "alpha = 1\nb(alpha)\nc(alpha)\n", "b.py": "import a\nprint(a.alpha)\n"},
        {"a.py": "beta = 1\nb(beta)\nc(beta)\n", "b.py": "import a\nprint(a.beta)\n"},
    ),
}


@pytest.mark.parametrize(("old", "new"), TREES.values(), ids=TREES)
def test_a_change_over_files_is_never_0_substantive(old, new):
    for path in old:
        # Each changed file by itself, too: a reader may look at one alone.
        assert substantive(old, new) > 0
        assert old[path] == new[path] or substantive({path: old[path]}, {path: new[path]}) > 0


def test_a_variable_whose_name_another_file_reads_is_no_rename():
    old = {"a.py": "def f(x):\n    alpha = x * 2\n    return alpha * alpha\n"}
    new = {"a.py": old["a.py"].replace("alpha", "beta")}
    reader = {"b.py": "import a\nprint(a.f.__code__.co_varnames)\n"}
    assert substantive(old, new) == 0
    assert substantive(old | reader, new | reader) == 4


@pytest.mark.parametrize("also", ["", "2", "other"], ids=["as it is", "a number", "a name"])
def test_a_rename_that_is_undone_wrongly_is_not_believed(monkeypatch, also):
    """Whatever replaces names in the text: only what is the same program but for them counts."""
    lines = ["def f(x):\n", "    wide = x * 2\n", "    return wide + other\n"]
    replaced = [(1, "wide", "broad"), (2, "wide", "broad")]
    replace = names._replace

    def wrong(*arguments):
        return [line.replace(also or "\0", "9") for line in replace(*arguments) or ()]

    monkeypatch.setattr(names, "_replace", wrong)
    found = names.undo(lines, ast.parse("".join(lines)), replaced, kept=set())
    assert (found.names == frozenset()) == bool(also)
