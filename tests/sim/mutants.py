"""Small faults put into the theory's formulas, one at a time.

Every function of a module, a method of its classes too, is changed at one place of its body: a
number by a tenth, an exponent by one, + to -, a term or a factor left out, two arguments or two
entries of what is returned swapped, a count one off, a parameter ignored in favour of its default,
a comparison or a truth value turned round. What only refuses wrong input (`require`) is left alone:
tests/theory covers that.
"""

from __future__ import annotations
import __future__

import ast
import copy
import importlib
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType

COUNTS = {
    *("n", "N", "B", "J", "d", "k", "m", "q", "dim", "dim_noise", "dim_all", "filters"),
    *("patches", "n_patches", "n_examples", "n_fast", "n_slow", "n_augmented", "size"),
    *("batch_size", "steps", "copies", "power", "count", "originals", "synthetic", "others"),
}
"""Names of what is counted: one more and one less of it."""

SYMMETRIC = {"max", "min", "hypot"}
"""Functions whose arguments may stand in any order."""

_OPERATORS = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
}
_COMPARISONS = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
}


@dataclass(frozen=True)
class Mutant:
    """A function of theory and its code with one fault, which `text` describes."""

    text: str
    function: FunctionType
    code: CodeType


def mutants(module: str, functions: set[str] | None = None) -> Iterator[Mutant]:
    """Every mutant of theory.`module`, or of these functions in it."""
    loaded = importlib.import_module(f"theory.{module}")
    tree = ast.parse(inspect.getsource(loaded))
    for name, definition, function in _functions(tree, loaded):
        if functions is None or name in functions:
            yield from _of_function(f"{module}.{name}", definition, function)


def _functions(
    tree: ast.Module, loaded: object
) -> Iterator[tuple[str, ast.FunctionDef, FunctionType]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node, getattr(loaded, node.name)
        if not isinstance(node, ast.ClassDef):
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef):
                found = inspect.getattr_static(getattr(loaded, node.name), method.name)
                found = getattr(found, "fget", getattr(found, "__func__", found))
                yield f"{node.name}.{method.name}", method, found


def _of_function(
    name: str, definition: ast.FunctionDef, function: FunctionType
) -> Iterator[Mutant]:
    definition = copy.deepcopy(definition)
    definition.decorator_list = []
    if ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    booleans = {
        a.arg
        for a in (*definition.args.args, *definition.args.kwonlyargs)
        if a.annotation is not None and ast.unparse(a.annotation) == "bool"
    }
    given = definition.args.defaults
    names = [a.arg for a in definition.args.args][-len(given) :] if given else []
    defaults = dict(zip(names, given, strict=True))
    seen: dict[str, int] = {}
    for parent, field, index, node in list(_places(definition)):
        new_nodes = _changes(node, parent, field, booleans)
        if isinstance(node, ast.Name) and node.id in defaults:
            new_nodes = itertools.chain(new_nodes, [defaults[node.id]])
        for change in new_nodes:
            new, what = change if isinstance(change, tuple) else (change, "")
            text = f"{name}: {what or f'`{_line(node)}` -> `{_line(new)}`'}"
            _put(parent, field, index, new)
            seen[text] = seen.get(text, 0) + 1
            if seen[text] > 1:
                text += f" ({seen[text]})"
            yield Mutant(text, function, _compiled(definition, function))
            _put(parent, field, index, node)


def _line(node: ast.AST) -> str:
    """The node as source; of a compound statement its first line, of a long one its beginning."""
    line = ast.unparse(node).split("\n")[0]
    return line if len(line) <= 50 else f"{line[:50]}..."


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _compiled(definition: ast.FunctionDef, function: FunctionType) -> CodeType:
    tree = ast.fix_missing_locations(ast.Module([definition], []))
    flags = __future__.annotations.compiler_flag
    namespace: dict[str, FunctionType] = {}
    code = compile(tree, f"<mutant of {definition.name}>", "exec", flags, dont_inherit=True)
    exec(code, dict(function.__globals__), namespace)
    return namespace[definition.name].__code__


_Place = tuple[ast.AST, str, int | None, ast.AST]


def _places(definition: ast.FunctionDef) -> Iterator[_Place]:
    """Every node of the body with where it hangs, (parent, field, index)."""

    def walk(parent: ast.AST) -> Iterator[_Place]:
        for field, value in ast.iter_fields(parent):
            signature = isinstance(parent, ast.FunctionDef) and field in ("args", "returns")
            # how zip and einsum go about their work changes no number
            how = isinstance(parent, ast.keyword) and parent.arg in ("strict", "optimize")
            if signature or how or field == "annotation":
                continue
            several = isinstance(value, list)
            for index, node in enumerate(value if several else [value]):
                if not isinstance(node, ast.AST) or _is_guard(node):
                    continue
                yield parent, field, index if several else None, node
                yield from walk(node)

    yield from walk(definition)


def _is_guard(node: ast.AST) -> bool:
    """A call whose result is not used, so that all it can do is refuse; or what it says."""
    return isinstance(node, ast.JoinedStr | ast.Assert) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )


def _changes(
    node: ast.AST, parent: ast.AST, field: str, booleans: set[str]
) -> Iterator[ast.AST | tuple[ast.AST, str]]:
    """What may stand in the node's place; a swap with a description, else as source says it."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            if value == 0:
                yield ast.Constant(1)
            else:
                yield from (ast.Constant(value * factor) for factor in (1.1, 0.9))
        case ast.BinOp(left=left, op=op, right=right):
            for other in _OPERATORS.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
            if isinstance(op, ast.Add | ast.Mult | ast.MatMult):
                yield right
            if not isinstance(op, ast.MatMult):
                yield left  # of a power: to the first
            if isinstance(op, ast.Pow):
                yield from (
                    ast.BinOp(left, op, ast.BinOp(right, sign(), ast.Constant(1)))
                    for sign in (ast.Add, ast.Sub)
                )
        case ast.AugAssign(target=target, op=op, value=value):
            for other in _OPERATORS.get(type(op), ()):
                yield ast.AugAssign(target, other(), value)
            yield ast.Pass()
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
        case ast.Compare(left=left, ops=[op], comparators=right):
            for other in _COMPARISONS.get(type(op), ()):
                yield ast.Compare(left, [other()], right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.And() if isinstance(op, ast.Or) else ast.Or(), values)
            yield from values
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.If(test=test, body=body, orelse=orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Tuple(elts=elts, ctx=ast.Load()) | ast.List(elts=elts, ctx=ast.Load()):
            for swapped, what in _swapped(elts):
                yield type(node)(swapped, ast.Load()), what
        case ast.Dict(keys=keys, values=values):
            for swapped, what in _swapped(values):
                yield ast.Dict(keys, swapped), what
        case ast.Call(func=func, args=args, keywords=keywords):
            called = getattr(func, "id", getattr(func, "attr", ""))
            if called in ("max", "min"):
                other = ast.Name("min" if called == "max" else "max", ast.Load())
                yield ast.Call(other, args, keywords)
                yield from args
            if called not in SYMMETRIC:
                for swapped, what in _swapped(args):
                    yield ast.Call(func, swapped, keywords), f"{called}, {what}"
            for index, keyword in enumerate(keywords[1:]):
                first = keywords[index]
                changed = list(keywords)
                changed[index] = ast.keyword(first.arg, keyword.value)
                changed[index + 1] = ast.keyword(keyword.arg, first.value)
                yield (
                    ast.Call(func, args, changed),
                    f"{called}, {first.arg} and {keyword.arg} swapped",
                )
        case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
            if name in booleans:
                yield ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]
            is_value = not (isinstance(parent, ast.Call) and field == "func")
            is_module = isinstance(parent, ast.Attribute)
            if name in COUNTS and is_value and not is_module:
                yield from (
                    ast.BinOp(node, sign(), ast.Constant(1))  # type: ignore[arg-type]
                    for sign in (ast.Add, ast.Sub)
                )


def _swapped(nodes: list[ast.expr]) -> Iterator[tuple[list[ast.expr], str]]:
    """Two of few, or two neighbours of many, the other way round, and what was done."""
    if any(isinstance(node, ast.Starred) for node in nodes):
        return
    for i, j in itertools.combinations(range(len(nodes)), 2):
        first, second = nodes[i], nodes[j]
        if (j == i + 1 or len(nodes) <= 4) and ast.dump(first) != ast.dump(second):
            swapped = list(nodes)
            swapped[i], swapped[j] = second, first
            yield swapped, f"`{_line(first)}` and `{_line(second)}` swapped"
