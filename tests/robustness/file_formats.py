"""Every kind of file that the product reads: a small example of each, and the function that reads it.

A new format is one entry of `FORMATS`. `make` writes its files into an empty folder; `read` reads them from there, as
its users do, and returns something to compare, or raises.
"""

from __future__ import annotations

import data_files
import model_files
import store_files
from format import Format

# Models come last: torch trains in no process that is forked after it has exported one.
FORMATS: dict[str, Format] = store_files.FORMATS | data_files.FORMATS | model_files.FORMATS
