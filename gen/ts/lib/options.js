import { Code, ConnectError } from "@connectrpc/connect";

/** @type {typeof import("./options.js").checkBaseUrl} */
export function checkBaseUrl(baseUrl, base) {
  let url;
  try {
    url = new URL(baseUrl, base);
  } catch {
    throw new TypeError("baseUrl must be a URL such as http://localhost:8080");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new TypeError("baseUrl must begin with http:// or https://");
  }
  if (url.username || url.password || url.search || url.hash) {
    throw new TypeError("baseUrl must have no user, password, query or fragment");
  }
  return url.href.replace(/\/+$/, "");
}

/** @type {typeof import("./options.js").checkProtocol} */
export function checkProtocol(protocol, protocols) {
  const chosen = protocol ?? protocols[0];
  if (!protocols.includes(chosen)) throw new TypeError(`protocol must be one of ${protocols.join(", ")}`);
  return chosen;
}

/** @type {typeof import("./options.js").interceptorsOf} */
export function interceptorsOf({ token, plaintextToken, interceptors }, baseUrl) {
  const all = [...(interceptors ?? [])];
  if (token === undefined) return all;
  if (typeof token !== "function") checkToken(token);
  const url = new URL(baseUrl);
  if (url.protocol === "http:" && !isLoopback(url.hostname) && !plaintextToken) {
    throw new TypeError("token must not cross the network in plaintext: use an https address, or plaintextToken: true to send it anyway");
  }
  all.push((next) => async (req) => {
    req.header.set("Authorization", `Bearer ${typeof token === "function" ? await fetched(token) : token}`);
    return next(req);
  });
  return all;
}

/**
 * Returns a token that can be sent, or fails as a call does.
 * @param {() => string | Promise<string>} token
 */
async function fetched(token) {
  try {
    return checkToken(await token());
  } catch (err) {
    if (err instanceof ConnectError) throw err;
    const message = err instanceof Error ? err.message : String(err);
    throw new ConnectError(`get a token: ${message}`, Code.Unauthenticated, undefined, undefined, err);
  }
}

/**
 * @param {string} token
 * @returns {string}
 */
function checkToken(token) {
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
    throw new TypeError("token must be printable ASCII without spaces, at least one character");
  }
  return token;
}

/** @param {string} host */
function isLoopback(host) {
  return host === "localhost" || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}
