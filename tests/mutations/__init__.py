"""Does anything notice? The library is broken in known ways; a unit test and a notebook check must fail for each.

    python -m tests.mutations                 all of them, about ten minutes on one core
    python -m tests.mutations --only skip_order,kl_direction
    python -m tests.mutations --list

The breaking is done in a copy of the package in a temporary folder; the checkout stays as it is.
"""
