"""What a record of ``campaign --stage speed`` says: speeds by system, batch and precision, and what teaching costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALONE, TAUGHT, TEACHER = "distil_dccrn alone", "distil_dccrn, AT-KL", "uformer"  # as the record names them


def speed_lines(record: Mapping[str, Any]) -> list[str]:
    """A record in lines: the device, agreement with the CPU where it was measured, then a line for each measurement.

    Args:
        record: what ``experiments.training_speed.measure_training`` returns and ``campaign --stage speed`` writes.
    """
    threads = record["threads"]
    lines = [
        f"device {record['device']}, {threads} thread{'s' * (threads > 1)}, {record['segment_seconds']:g} s a mixture"
    ]
    for model, off in record["agreement_with_cpu"].items():
        lines.append(f"  {model}, off from the CPU by " + ", ".join(f"{k} {v:.1e}" for k, v in off.items()))
    for row in record["rows"]:
        graph = ", CUDA graph" if row["cuda_graph"] else ""
        lines.append(
            f"  {row['system']:<20} batch {row['batch']:>3}, {row['precision']:<8} "
            f"{row['audio_seconds_per_second']:9.2f} s of audio per second, {row['peak_memory_gib']:6.2f} GiB{graph}"
        )
    return lines


def _speeds(record: Mapping[str, Any], system: str) -> dict[tuple, float]:
    """(batch, precision, CUDA graph) -> s of audio per second."""
    return {
        (r["batch"], r["precision"], r["cuda_graph"]): r["audio_seconds_per_second"]
        for r in record["rows"]
        if r["system"] == system
    }


def cost_of_teaching(record: Mapping[str, Any]) -> dict[tuple, float]:
    """(batch, precision, CUDA graph) -> how many times as long a step takes with teacher and AT-KL as alone.

    Args:
        record: as for :func:`speed_lines`; what was measured for one of the two only is left out.
    """
    alone, taught = _speeds(record, ALONE), _speeds(record, TAUGHT)
    return {key: alone[key] / taught[key] for key in alone if key in taught}


def bfloat16_gain(record: Mapping[str, Any]) -> dict[tuple[str, int], float]:
    """(system, batch) -> how many times as fast bfloat16 makes the student alone and the teacher.

    Args:
        record: as for :func:`speed_lines`; batches that both systems have in both precisions.
    """
    speeds = {system: _speeds(record, system) for system in (ALONE, TEACHER)}
    gains = {}
    for system, by_plan in speeds.items():
        for (batch, precision, graph), fast in by_plan.items():
            wanted = [(s, (batch, p, graph)) for s in speeds for p in ("float32", "bfloat16")]
            if precision == "bfloat16" and all(plan in speeds[s] for s, plan in wanted):
                gains[system, batch] = fast / by_plan[batch, "float32", graph]
    return gains
