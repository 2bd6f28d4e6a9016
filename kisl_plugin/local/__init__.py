"""The embedded engine: trains GPT-NeoX YAMLs of Llama models with plain PyTorch, on a CPU or one GPU."""

from typing import TYPE_CHECKING

from kisl_plugin.errors import needs_extra
from kisl_plugin.hookspecs import hookimpl

if TYPE_CHECKING:
    from kisl_plugin.hookspecs import Engine


@hookimpl
def kisl_engine(name: str) -> "Engine | None":
    """Provide the engine `local`."""
    if name != "local":
        return None
    with needs_extra("local", "the local engine"):
        from kisl_plugin.local.engine import LocalEngine
    return LocalEngine()
