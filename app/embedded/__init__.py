"""A PostgreSQL of one's own in a local folder, for development, the demo and the tests.

Data flow     `binaries` finds the programs, `placement` decides where the data may live, `cluster` runs one
              server, `local` shares it between the processes that need it.
Concurrency   Everything blocks; call it from a thread where an event loop runs. Processes that share a
              local server meet at file locks, which a killed process cannot keep.
Promises      Data survives. The last one out stops the server. A start clears up what a kill left.
Never         No account is created, and no mode of a file outside the folder is changed.
May import    Nothing of this project.
"""

from app.embedded.account import Account, server_account
from app.embedded.binaries import Binaries, find_all
from app.embedded.cluster import Cluster
from app.embedded.errors import EmbeddedError
from app.embedded.local import LocalServer

__all__ = ["Account", "Binaries", "Cluster", "EmbeddedError", "LocalServer", "find_all", "server_account"]
