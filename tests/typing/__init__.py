"""The public API as a type checker sees it. mypy reads what is here; nothing runs it."""
