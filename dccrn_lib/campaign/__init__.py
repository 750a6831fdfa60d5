"""All systems of the comparison on one device, side by side, within a stated number of minutes.

    python -m dccrn_lib.campaign --speech speech.jsonl --noise noise.jsonl --rir rir.jsonl --out runs/campaign --minutes 25

``plan`` says which systems, ``lockstep`` trains several of them on the same batches at once, ``bench`` measures what a
step costs on this device. docs/training.md tells how the recipe was chosen.
"""
