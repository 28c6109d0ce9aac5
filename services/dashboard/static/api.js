// Requests to the server: they carry the reader's token, and what goes wrong is an error with a reason.

const KEY = "token";
let kept = "";
try {
  kept = localStorage.getItem(KEY) ?? "";
} catch {
  // storage may be closed to us: then the token lasts as long as the page
}

export const token = () => kept;

export function keepToken(value) {
  kept = value;
  try {
    if (value) localStorage.setItem(KEY, value);
    else localStorage.removeItem(KEY);
  } catch {
    // see above
  }
}

/** An answer that is no success. `status` 0: there was none. */
export class Refused extends Error {
  constructor(status, reason, field = "") {
    super(reason);
    Object.assign(this, { status, reason, field });
  }
}

export const headers = (given = kept) => (given ? { Authorization: `Bearer ${given}` } : {});

async function answer(path, options = {}, given = kept) {
  let response;
  try {
    const sent = { ...options.headers, ...headers(given) };
    response = await fetch(path, { cache: "no-store", ...options, headers: sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, String(error.message));
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.reason ?? response.statusText, body.field);
}

export const get = async (path, { signal } = {}, given = kept) => (await answer(path, { signal }, given)).json();

export async function post(path, body) {
  const options = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await answer(path, options)).json();
}

/** Save what `path` answers as a file: a link could not carry the token. */
export async function download(path, filename) {
  const made = URL.createObjectURL(await (await answer(path)).blob());
  const link = document.createElement("a");
  Object.assign(link, { href: made, download: filename });
  link.click();
  setTimeout(() => URL.revokeObjectURL(made), 60_000);
}
