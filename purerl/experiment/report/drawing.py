"""Draws what belongs to a result that is written: where that fails, a warning says so."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from purerl.envs.contract import one_line


def draw(plots: Mapping[Path, Callable[[Path], Any]], advice: str) -> None:
    """Draw each figure into its file, with matplotlib's own settings.

    A run is finished whatever a figure does: its errors, and those of matplotlib, are warnings.
    """
    for path, plot in plots.items():
        try:
            # Here: matplotlib takes a while to import, and may be missing or broken.
            from purerl.experiment.report.figures import default_style

            with default_style():
                plot(path)
        except Exception as error:
            warnings.warn(f"{path} is not drawn: {one_line(error)}; {advice}.", stacklevel=3)
