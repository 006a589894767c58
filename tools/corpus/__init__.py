"""Text to token store. `python -m tools.corpus --help` lists the commands.

The store's format is docs/reference/token-store.md. This package stays cheap to import: the
launcher calls `tools.corpus.default.prepare_default` before every run.
"""
