"""The pages of theory/ and the code agree: labels, anchors, functions, checks, links."""

import importlib
import inspect
import re
import unicodedata
from pathlib import Path

import pytest

from sim.checks import CHECKS
from theory.claims import CLAIMS

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "theory").glob("*.md")}
README = PAGES["README.md"]
MODULES = [name.removesuffix(".md") for name in PAGES if name != "README.md"]
LABELS = {name: re.findall(r"\\tag\{([A-Z]?\d+)\}", text) for name, text in PAGES.items()}
EVERY_LABEL = [label for labels in LABELS.values() for label in labels]


def _anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def _cited(text: str) -> set[str]:
    """Labels in a text such as "equations (F4) to (F6), (30)", ranges filled in."""
    found = set(re.findall(r"\(([A-Z]?\d+)\)", text))
    for kind, first, last in re.findall(r"\(([A-Z]?)(\d+)\) to \([A-Z]?(\d+)\)", text):
        found |= {f"{kind}{i}" for i in range(int(first), int(last) + 1)}
    return found


def _functions(module: str) -> dict[str, object]:
    """A module's own functions but for check_… and predict_…, which state no result.

    The former refuse bad input, the latter print what the others compute.
    """
    loaded = importlib.import_module(f"theory.{module}")
    found = inspect.getmembers(loaded, inspect.isfunction)
    own = {name: f for name, f in found if f.__module__ == loaded.__name__}
    return {name: f for name, f in own.items() if not re.match("_?(check|predict)_", name)}


def test_labels_are_unique() -> None:
    assert len(EVERY_LABEL) == len(set(EVERY_LABEL))


@pytest.mark.parametrize("page", PAGES)
def test_labels_of_a_kind_stand_in_order(page: str) -> None:
    for kind in {re.sub(r"\d", "", label) for label in LABELS[page]}:
        numbers = [int(n) for n in re.findall(rf"\\tag\{{{kind}(\d+)\}}", PAGES[page])]
        assert numbers == sorted(numbers), f"({kind}…) on {page}"


# --- notation ------------------------------------------------------------------------------------

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "Delta": "Δ", "varepsilon": "ε",
    "eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
_ACCENTS = {"bar": "\u0304", "hat": "\u0302"}
_MARK = r"\w\u0300-\u036f"


def _plain(text: str) -> str:
    r"""A page with symbols as they stand outside of formulas: \bar l_{v_e} as l̄_v_e."""
    text = re.sub(r"\\tag\{.*?\}|`[^`]*`|\]\([^)]*\)", " ", text)
    text = re.sub(r"\\(?:text|mathrm|operatorname)\{([^{}]*)\}", r" \1 ", text)
    for name, letter in _GREEK.items():
        text = re.sub(rf"\\{name}(?![a-z])", letter, text)
    for name, accent in _ACCENTS.items():
        text = re.sub(rf"\\{name}\s*\{{?(\w)\}}?", rf"\1{accent}", text)
    text = re.sub(r"\\[a-zA-Z]+|\\.", " ", text)
    text = re.sub(r"([_^])\{([^{}]*)\}", r"\1\2 ", text)
    text = re.sub("⁽[⁰ᵖ]⁾", "", text).replace("^*", "*")
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda m: "^" + unicodedata.normalize("NFKD", m[0]), text)
    return unicodedata.normalize("NFD", text)


def _uses(symbol: str, text: str) -> bool:
    """Whether plain text uses a symbol; one with an index v, i or j, with any such index."""
    if symbol == "a":  # where it cannot be the article
        return re.search(rf"(?<![{_MARK}])a(?=[τ^(,;])", text) is not None
    body = re.escape(_plain(symbol))
    for index, others in (("_v", "_(?:v_)?[vedi]"), ("_i", "_[im]"), ("_j", "_[jm]")):
        body = body.replace(index, others) if symbol.endswith(index) else body
    # letters beside a Latin one make it a word, beside a Greek one a product
    beside = "\u0300-\u036f" if symbol[0] in _GREEK.values() else _MARK
    before = "" if symbol[0] in _GREEK.values() else rf"(?<![{_MARK}])"
    after = "" if "_" in symbol else "_"
    return re.search(rf"{before}{body}(?![{beside}'*{after}])", text) is not None


_TABLE = README.split("## Notation")[1].split("\n## ")[0]
SYMBOLS = [
    symbol
    for cell in re.findall(r"^\| ([^|]+) \| .+ \|.*\|$", _TABLE, re.MULTILINE)[1:]
    for symbol in cell.split(", ")
]


def test_no_symbol_has_two_rows() -> None:
    assert len(SYMBOLS) > 60
    assert len(SYMBOLS) == len(set(SYMBOLS))


def test_a_symbol_is_found_in_formulas_and_in_text() -> None:
    formula = r"$$ \bar l_{v_e} \rho^2 + N_d k^* g_*^2 + \sigma_p \tag{C3} $$"
    text = _plain(formula + " so aτ is a rate, μ_d, `q`, ŵ²")
    for symbol in ("l̄_v", "ρ", "N_d", "k*", "g_*²", "σ_p", "a", "τ", "ŵ"):
        assert _uses(symbol, text), symbol
    for symbol in ("l_i", "N", "k", "C", "q", "μ", "w_j", "v_d", "v_e"):
        assert not _uses(symbol, text), symbol


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("module", MODULES)
def test_a_page_introduces_the_symbols_it_uses(module: str, symbol: str) -> None:
    page = PAGES[f"{module}.md"]
    box = "\n".join(line for line in page.splitlines() if line.startswith(">"))
    text = "\n".join(line for line in page.splitlines() if not line.startswith((">", "#")))
    if _uses(symbol, _plain(text)):
        assert _uses(symbol, _plain(box)), f"{module}.md uses {symbol}, which its box does not say"


@pytest.mark.parametrize("module", MODULES)
def test_every_page_has_its_module_and_can_be_read_alone(module: str) -> None:
    page = PAGES[f"{module}.md"]
    assert f"`theory.{module}`" in page
    paragraph = re.search(r"^> \*\*Setting\*\*.+?\n\n", PAGES["moments.md"], re.DOTALL | re.M)
    assert paragraph
    assert paragraph.group() in page


@pytest.mark.parametrize("module", MODULES)
def test_every_function_cites_an_equation_that_exists(module: str) -> None:
    functions = _functions(module)
    assert functions
    for name, function in functions.items():
        cited = _cited(inspect.getdoc(function) or "")
        assert cited, f"{name} cites no equation"
        assert cited <= set(EVERY_LABEL), name


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_is_in_the_table(module: str) -> None:
    for name in _functions(module):
        assert name.startswith("_") or f"`{module}.{name}`" in README, name


def test_every_equation_belongs_to_a_claim() -> None:
    claimed = set().union(*(_cited(claim.equations) for claim in CLAIMS.values()))
    assert set(EVERY_LABEL) - claimed == {"1", "2", "3"}, "definitions alone belong to no claim"


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=lambda c: c.name)
def test_a_claim_points_at_a_heading_and_at_labels(claim) -> None:
    assert claim.anchor in _anchors(PAGES[claim.page])
    assert _cited(claim.equations) <= set(EVERY_LABEL)
    assert f"`{claim.name}`" in PAGES[claim.page], "the page names its check"
    assert claim.name in CHECKS


def test_the_table_lists_every_claim_with_functions_check_and_notebook() -> None:
    row = re.compile(
        r"^\| ([\w-]+) \| .+? \| \[(.+?)\]\((.+?)\) \| (.+?) \| "
        r"`sim verify --claims ([\w-]+)` \| \[\w+\]\((.+?)\) \|$",
        re.MULTILINE,
    )
    rows = row.findall(README)
    assert [name for name, *_ in rows] == list(CLAIMS)
    for name, equations, link, functions, check, notebook in rows:
        claim = CLAIMS[name]
        assert check == name
        assert (equations, link) == (claim.equations, f"{claim.page}#{claim.anchor}")
        assert (ROOT / "theory" / notebook).is_file(), notebook
        paths = re.findall(r"`([\w.]+)`", functions)
        assert paths
        for path in paths:
            module, function = path.split(".")
            assert function in _functions(module), path


LINKED = [
    path
    for folder in ("", "theory", "sim", "empirical", "results", "notebooks")
    for path in (ROOT / folder).glob("*.md")
]


@pytest.mark.parametrize("path", LINKED, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_dead_links(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text):
        file = path.parent / target if target else path
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), f"{target}#{anchor}"
