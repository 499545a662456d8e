"""The report of a comparison: one self-contained HTML file, in words, numbers and pictures.

Everything in it is computed from the `Comparison`; the page needs no scripts and no network.
"""

from ntk_uq.report.choice import RegChoice, choice_findings
from ntk_uq.report.sentences import calibration_finding, calibration_findings, findings
from ntk_uq.report.writing import write_report

__all__ = [
    "RegChoice",
    "calibration_finding",
    "calibration_findings",
    "choice_findings",
    "findings",
    "write_report",
]
