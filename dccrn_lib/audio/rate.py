"""The sampling rate of the networks, the corpora and the metrics; other rates live only in files."""

#: In Hz.
SAMPLE_RATE = 16000
