// @ts-check
// Shows who this program is for the controller.
import { readFile } from "node:fs/promises";
import { AccessService, Role, createClient, createTransport } from "@mig-controller/client/node";

const baseUrl = process.argv[2] ?? process.env.CONTROLLER_URL ?? "http://localhost:8080";
const tokenFile = process.env.TOKEN_FILE;
const token = tokenFile === undefined ? undefined : async () => (await readFile(tokenFile, "utf8")).trim();
const access = createClient(AccessService, createTransport({ baseUrl, token }));

const { principal } = await access.whoAmI({});
console.log(principal?.name, Role[principal?.role ?? Role.UNSPECIFIED]);
