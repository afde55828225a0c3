"""What the garbage collector of a process that stays needn't look at again."""

import gc


def settle() -> None:
    """Spare what has been made by now, which lives as long as the process does, from every collection to come.

    A full one stops everything else for as long as it takes to look at all of it: modules, routes, models.
    """
    gc.collect()
    gc.freeze()
