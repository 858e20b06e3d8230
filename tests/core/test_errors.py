"""Every error that whyflag raises on purpose is in the one tree that core/errors.py draws."""

import importlib
import pkgutil
import re

import analyst
import cli
import core
import explain
import models
import streams
import training
from core import errors


def subclasses(kind):
    return {kind} | {found for child in kind.__subclasses__() for found in subclasses(child)}


def drawn_tree():
    """Name and parent of each error in the drawing."""
    tree, above = {}, {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"    ([│ ├└─]*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            tree[match[2]] = above.get(depth - 1)
            above[depth] = match[2]
    return tree


def test_the_drawing_names_every_error_with_its_parent():
    for package in (analyst, cli, core, explain, models, streams, training):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name and module.name != "explain.narrators.local":
                importlib.import_module(module.name)
    defined = {kind.__name__: kind.__bases__[0].__name__ for kind in subclasses(errors.WhyflagError)}
    assert drawn_tree() == defined | {"WhyflagError": None}
    assert all(kind.__module__ == "core.errors" for kind in subclasses(errors.WhyflagError))
