"""How the documentation is built; see ``make docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from aiohttp_oauth_middleware import __version__  # noqa: E402

project = "aiohttp-oauth-middleware"
author = "The aiohttp-oauth-middleware authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest", "rfc_table"]
# performance-figures.rst is written by the benchmarks and included by performance.rst.
exclude_patterns = ["_build", "performance-figures.rst"]
nitpicky = True
# There is no network where this is built, so these have no inventory to be looked up in.
nitpick_ignore_regex = [
    (r"py:.*", r"(aiohttp|authlib|multidict|pytest|yarl)\..*"),
    # The same, imported for type checkers only, and so known by the bare name.
    (
        r"py:class",
        r"(web\.)?(Application|Client(Handler|Middleware)Type|Client(Request|Response|Session)|TraceConfig|MultiMapping|RSAPublicKey|URL)",
    ),
    (r"py:.*", r"((asyncio|collections|contextlib|contextvars|functools|os|pathlib|re|threading|types|typing)\..*|hashlib)"),
    (
        r"py:(class|exc|meth|func|data|obj)",
        r"(Exception|LookupError|RecursionError|TimeoutError|TypeError|ValueError|None|bool|bytes|callable|dict|float|int|list|object|str|tuple|optional|iterable)",
    ),
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

doctest_global_setup = """
from aiohttp_oauth_middleware import *
"""
doctest_test_doctest_blocks = "default"

# A name in single backticks is looked up everywhere.
default_role = "any"

html_theme = "furo"
html_title = f"aiohttp-oauth-middleware {version}"
html_static_path = ["_static"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
