"""The world: who this process is among how many. The world of one is the identity, so no caller branches."""

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Rank and size of the data-parallel group (collectives come with the parallel plans)."""

    rank: int = 0
    size: int = 1


ALONE = World()
