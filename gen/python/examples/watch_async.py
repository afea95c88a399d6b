"""Sends a command to a VM and follows it to its end, with asyncio."""

import asyncio
import os
import sys

import mig_controller_client as mig

VM = "sim-vm-0001"


async def main(address: str) -> None:
    async with mig.connect_async(address) as controller:
        watch = controller.admin.watch_fleet(mig.WatchFleetRequest(vm_id=VM))
        async with mig.aclosing(watch) as changes:
            await anext(changes)  # only a cursor: from here on nothing is missed
            command = mig.Command(type="set_log_level", string_params={"level": "debug"})
            sent = await controller.admin.send_command(
                mig.SendCommandRequest(vm_id=VM, command=command)
            )

            async for change in changes:
                record = change.command
                if record.command.id != sent.command.command.id:
                    continue
                state = mig.CommandState.Name(record.state).removeprefix("COMMAND_STATE_")
                print(record.vm_id, record.command.type, state)
                if record.state in mig.TERMINAL_STATES:
                    return


if __name__ == "__main__":
    address = os.environ.get("CONTROLLER_URL", mig.DEFAULT_ADDRESS)
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else address))
