"""Shapes in signatures are checked while the tests run: jaxtyping reads them, beartype enforces them."""

from jaxtyping import install_import_hook

install_import_hook("helpers", "beartype.beartype")
