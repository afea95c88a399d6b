// Shows the error for a request that the controller refuses.
// @ts-check
import { AdminService, Code, ConnectError, ErrorReason, createClient, createTransport, errorDetail } from "@mig-controller/client/node";

const baseUrl = process.argv[2] ?? process.env.CONTROLLER_URL ?? "http://localhost:8080";
const admin = createClient(AdminService, createTransport({ baseUrl }));

try {
  await admin.sendCommand({ vmId: "sim-vm-0001", command: { type: "drain now" } });
} catch (err) {
  console.log("code:  ", Code[ConnectError.from(err).code]);
  const detail = errorDetail(err);
  if (!detail) throw err; // Not from the controller: no connection, for example.
  console.log("reason:", ErrorReason[detail.reason]);
  console.log("field: ", detail.field);
  console.log("rule:  ", detail.rule);
}
