"""The plugin manager: built-in ways first registered, installed ones (entry points of group `kisl`) asked first."""

from functools import cache

import pluggy

from kisl_plugin import hookspecs

BUILT_IN = (
    "kisl_plugin.triple_sources",
    "kisl_plugin.verbalize",
    "kisl_plugin.spacings",
    "kisl_plugin.matching",
    "kisl_plugin.local",
)


@cache
def manager() -> pluggy.PluginManager:
    """The one manager of this process. Tests register on it and unregister again."""
    from importlib import import_module

    plugins = pluggy.PluginManager(hookspecs.PROJECT)
    plugins.add_hookspecs(hookspecs)
    for name in BUILT_IN:
        plugins.register(import_module(name), name=name)
    plugins.load_setuptools_entrypoints(hookspecs.PROJECT)
    return plugins
