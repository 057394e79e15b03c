"""Router (once Asym): a pipeline of its own for queries. Served where queries need no forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from tercet.checkpoints.files import read_settings
from tercet.checkpoints.layouts.modules import Module, module_at
from tercet.checkpoints.spec import StaticSparseSpec
from tercet.errors import CheckpointError, UnsupportedModelError


def read_routes(router: Module) -> dict[str, tuple[Module, ...]]:
    """Return the modules of each route.

    Raises:
        CheckpointError: the router's settings are malformed.
    """
    path = router.folder / "router_config.json"
    settings = read_settings(path if path.is_file() else router.folder / "config.json", required=True)
    types, structure = settings.typed("types", dict), settings.typed("structure", dict)
    routes = {}
    for route, names in structure.items():
        if not isinstance(names, list) or not names or any(name not in types for name in names):
            raise CheckpointError(f"{settings.path}: route {route!r} lists {names!r}; known modules: {sorted(types)}")
        routes[route] = tuple(module_at(settings.path, router.folder, types[name], name) for name in names)
    return routes


def split(modules: Sequence[Module]) -> tuple[Sequence[Module], Module | None]:
    """Return the modules that documents go through, and the table that queries are read off, if there is one.

    Raises:
        UnsupportedModelError: queries and documents go through different transformers.
    """
    if modules[0].kind != "Router":
        return modules, None
    routes = read_routes(modules[0])
    query, document = routes.get("query"), routes.get("document")
    if query is None or document is None or [m.kind for m in query] != ["SparseStaticEmbedding"] or len(modules) > 1:
        listed = "; ".join(f"{route}: {', '.join(m.kind for m in each)}" for route, each in routes.items())
        raise UnsupportedModelError(
            f"{modules[0].folder} routes {listed}; known: query: SparseStaticEmbedding; document: a pipeline of modules"
        )
    return document, query[0]


def static_table(table: Module, dims: int) -> StaticSparseSpec:
    """Return where the query table of a module lies."""
    name = table.config.get("path")
    if name is None:
        return StaticSparseSpec(table.weights, dims)
    path = table.folder / str(name)
    if not path.resolve().is_relative_to(table.folder.resolve()) or not path.is_file():
        raise CheckpointError(f"{table.config.path} has 'path': {name!r}, which is no file beside it")
    return StaticSparseSpec(path, dims)
