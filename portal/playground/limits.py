"""How much one person may do in the playground at a time, in one process."""

from portal.pages.crowding import Places, Rates

MAX_SOCKETS_PER_USER = 12
MAX_RUNS_PER_USER = 4
MAX_MESSAGES_PER_MINUTE = 120
MAX_CONNECTS_PER_MINUTE = 60

CONNECTS = Rates(MAX_CONNECTS_PER_MINUTE)
SOCKETS = Places(MAX_SOCKETS_PER_USER)
RUNS = Places(MAX_RUNS_PER_USER)
