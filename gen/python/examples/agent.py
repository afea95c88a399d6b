"""Acts as an agent: connects, receives register_runner, and reports the registration."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator

import mig_controller_client as mig

VM = "example-vm-0001"


async def main(address: str) -> None:
    outbox: asyncio.Queue[mig.MIGletMessage | None] = asyncio.Queue()

    async def outgoing() -> AsyncIterator[mig.MIGletMessage]:
        while (message := await outbox.get()) is not None:
            yield message

    async with mig.connect_async(address) as controller:
        outbox.put_nowait(
            mig.MIGletMessage(connect=mig.ConnectRequest(vm_id=VM, pool_id="examples"))
        )
        # A runner that is not configured shows that the agent has restarted and has
        # not only lost its connection.
        outbox.put_nowait(heartbeat("ready", configured=False))
        async for message in controller.commands.stream_commands(outgoing()):
            if message.HasField("connect_ack"):
                print("accepted" if message.connect_ack.accepted else "refused")
            elif message.command.type == "register_runner":
                # Its string_params hold the registration token, a secret.
                print("register_runner received")
                for report in registered(message.command):
                    outbox.put_nowait(report)
                print("runner registered")
                outbox.put_nowait(None)  # ends our side; the controller then ends its own


def registered(command: mig.Command) -> list[mig.MIGletMessage]:
    """What an agent reports once its runner is registered."""
    now = int(time.time())
    return [
        mig.MIGletMessage(command_ack=mig.CommandAck(command_id=command.id, success=True)),
        mig.MIGletMessage(
            event=mig.EventNotification(type="runner_registered", vm_id=VM, timestamp=now)
        ),
        heartbeat("idle", configured=True),
    ]


def heartbeat(state: str, *, configured: bool) -> mig.MIGletMessage:
    """A heartbeat with the state of the agent and whether its runner is configured."""
    runner = mig.RunnerState(state="idle" if configured else "offline", configured=configured)
    return mig.MIGletMessage(
        heartbeat=mig.Heartbeat(
            vm_id=VM, runner_state=runner, miglet_state=state, timestamp=int(time.time())
        )
    )


if __name__ == "__main__":
    address = os.environ.get("CONTROLLER_URL", mig.DEFAULT_ADDRESS)
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else address))
