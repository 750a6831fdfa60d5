"""Would its test notice if a mended fault came back? Each mend is taken out again, and the test named must fail.

    python -m tests.faults                 all of them, about a quarter of an hour on one core
    python -m tests.faults --only 1,5,33
    python -m tests.faults --list

The faults are numbered as in docs/reliability.md. As with the mutations, a mend is taken out of a copy of the package in
a temporary folder; the checkout stays as it is.
"""
