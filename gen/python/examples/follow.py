"""Prints every change of the fleet, across restarts of the controller."""

import os
import sys
import time
from collections.abc import Iterator

import mig_controller_client as mig


def follow(controller: mig.Controller, cursor: str = "") -> Iterator[mig.WatchFleetResponse]:
    """Yields every change after the cursor, once; without a cursor, from now on."""
    while True:
        try:
            for change in controller.admin.watch_fleet(mig.WatchFleetRequest(cursor=cursor)):
                cursor = change.cursor
                yield change
        except mig.ConnectError as error:
            if error.code != mig.Code.UNAVAILABLE:
                raise
        time.sleep(1)


def main(address: str) -> None:
    with mig.connect(address) as controller:
        for change in follow(controller):
            print(change.WhichOneof("change"), change.cursor)


if __name__ == "__main__":
    address = os.environ.get("CONTROLLER_URL", mig.DEFAULT_ADDRESS)
    main(sys.argv[1] if len(sys.argv) > 1 else address)
