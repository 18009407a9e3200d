"""The demo that ``make demo`` runs; above everything else in the order of imports."""
from .commands import ToolError
from .pipeline import Demo
from .stages import Stage, run_stages

__all__ = ['Demo', 'Stage', 'ToolError', 'run_stages']
