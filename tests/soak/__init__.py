"""Does it hold? Commands are killed, starved of disk, fed with rubbish and loaded; every failure is counted and shown.

    python -m tests.soak                                 everything into results/reliability.json
    python -m tests.soak --only kills,numerics           these kinds; the record keeps what it has of the others
    python -m tests.soak --only disk.pack --share 0.2    one case, a fifth of its trials
    python -m tests.soak --list

Each kind is a module with ``CASES``: name -> function that takes a :class:`~tests.soak.place.Place` and returns a
:class:`~tests.soak.rows.Row`. A trial holds or fails; the command ends with 1 when one failed. Short forms of the cases
run in the test suite (``test_soak.py``).
"""
