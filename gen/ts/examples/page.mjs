// Lists the VMs on a page that has <pre id="fleet">, and follows their changes.
// @ts-check
import { AdminService, createClient, createTransport } from "@mig-controller/client/web";

// Without a baseUrl, the controller is called at the page's own origin.
const admin = createClient(AdminService, createTransport());

/** @param {import("@mig-controller/client").VM} vm */
function show(vm) {
  document.querySelector("#fleet")?.append(`${vm.vmId} ${vm.connected ? vm.status : "away"}\n`);
}

async function follow() {
  let listed = false;
  for await (const { change } of admin.watchFleet({})) {
    if (change.case === "vm") show(change.value);
    if (listed) continue;
    // The first message has only a cursor: changes during the list call follow it.
    listed = true;
    const { vms } = await admin.listVMs({ pageSize: 1000 });
    vms.forEach(show);
  }
}

follow().catch((err) => console.error(err));
