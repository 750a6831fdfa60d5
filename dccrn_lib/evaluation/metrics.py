"""The metrics by name: what each is called in a table and on an axis, and which of them are compared.

What they measure, and how they are computed, stands in ``evaluation.scores``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is called, and what it needs.

    Args:
        label: for readers.
        unit: "" where it has none.
        quality: whether higher is better; gain and polarity only describe.
        reference: whether it compares with the clean signal.
        decimals: that a table for readers shows of a mean.
    """

    label: str
    unit: str = ""
    quality: bool = True
    reference: bool = True
    decimals: int = 2

    @property
    def column(self) -> str:
        """Head of a column.

        >>> METRICS["si_snr_db"].column
        'SI-SNR dB'
        """
        return f"{self.label} {self.unit}".strip()

    @property
    def axis(self) -> str:
        """Label of an axis.

        >>> METRICS["si_snr_db"].axis
        'SI-SNR (dB)'
        """
        return f"{self.label} ({self.unit})" if self.unit else self.label


#: Key in results -> metric, in the order in which tables show them.
METRICS = {
    "pesq_wb": Metric("WB-PESQ"),
    "pesq_nb": Metric("NB-PESQ"),
    "stoi": Metric("STOI", decimals=3),
    "si_snr_db": Metric("SI-SNR", "dB"),
    "gain": Metric("gain", quality=False),
    "polarity": Metric("polarity", quality=False),
    "dnsmos_ovrl": Metric("DNSMOS OVRL", reference=False),
    "dnsmos_sig": Metric("DNSMOS SIG", reference=False),
    "dnsmos_bak": Metric("DNSMOS BAK", reference=False),
}
ALL_METRICS = tuple(METRICS)
REFERENCE_METRICS = tuple(name for name, metric in METRICS.items() if metric.reference)
DNSMOS_METRICS = tuple(name for name, metric in METRICS.items() if not metric.reference)
#: What experiments with many runs score: one of each kind, and none that needs an extra.
COMPARED_METRICS = ("pesq_wb", "stoi", "si_snr_db")
