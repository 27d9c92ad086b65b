"""How a supervisor and a worker talk: one JSON object a line, over an inherited socket.

The first message of either side is ``hello`` and carries the protocol's version. Arrays never travel here;
they go through files in the run's folder. The messages:

======================  =====================================================================================
supervisor to worker
----------------------  -------------------------------------------------------------------------------------
``hello``               ``protocol``
``init``                ``method`` {folder, entry}, ``views`` [{name, camera, image, mask}], ``points``,
                        ``background``, ``has_alpha``, ``settings``, ``seed``, ``device``, ``budget``
                        {steps} or {device_seconds}, ``checkpoint`` (a folder, or null), ``state`` (what
                        ``saved`` said when that checkpoint was made, or null)
``train``               ``until`` {steps, device_seconds}: stop at whichever comes first; either may be null
``render``              ``views`` [{name, camera, image, depth}]: file names to write; depth may be null
``save``                ``folder``
``export``              ``folder``
``pause``               stop training after the step at hand (answered by ``reached``), or rendering after the
                        view at hand (answered by ``rendered``)
``stop``                end
======================  =====================================================================================

======================  =====================================================================================
worker to supervisor
----------------------  -------------------------------------------------------------------------------------
``hello``               ``protocol``, ``python``, ``numpy``, ``pid``
``ready``               the method is there: ``state``
``progress``            while training, a few times a second: ``state``, ``info`` (what ``step()`` returned)
``reached``             training stopped: ``state``, ``info``
``rendering``           after each view: ``done``, ``total``
``rendered``            ``seconds`` that rendering took, without writing files
``saved``               ``state``
``exported``            ``files``
``failed``              ``cause``, ``traceback``, and of an OSError ``errno`` and ``file``; the worker ends
======================  =====================================================================================

``state`` is ``{steps, device_seconds, setup_seconds, finished, memory_bytes}``.
"""

from __future__ import annotations

import json
import select
import socket
from typing import Any, Dict, Optional

VERSION = 1


class Closed(Exception):
    """The other side has gone."""


class Channel:
    """A line-wise JSON connection over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pending = b""

    def send(self, kind: str, **fields: Any) -> None:
        """Send one message. NaN and infinities are refused (ValueError): JSON has none.

        Raises:
            Closed: the other side has gone.
        """
        line = json.dumps(dict(fields, type=kind), allow_nan=False).encode() + b"\n"
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self, timeout: Optional[float] = None) -> Optional[Dict[str, Any]]:
        """The next message, or None when ``timeout`` seconds have passed without a whole one.

        Raises:
            Closed: the other side has gone and nothing is left to read.
            ValueError: what came is not a JSON object.
        """
        while b"\n" not in self._pending:
            readable, _, _ = select.select([self._socket], [], [], timeout)
            if not readable:
                return None
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise Closed(str(error)) from None
            if not data:
                raise Closed("end of messages")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message = json.loads(line.decode())
        if not isinstance(message, dict) or "type" not in message:
            raise ValueError("not a message: {!r}".format(line[:200]))
        return message

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
