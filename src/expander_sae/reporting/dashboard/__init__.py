"""The dashboard: a folder that shows every feature of a dictionary, from a disk or from any static host.

From a disk a browser runs scripts and reads nothing else, so all data are scripts: one with the columns of the table,
packed, and one for every few features, loaded when one of them is looked at.
"""

from expander_sae.reporting.dashboard.measures import Measure, measures_in
from expander_sae.reporting.dashboard.writing import Shown, is_written, page_files, write_dashboard

__all__ = ["Measure", "Shown", "is_written", "measures_in", "page_files", "write_dashboard"]
