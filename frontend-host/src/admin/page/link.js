// The way to the gateway: the token, requests, and the stream of events. No request goes anywhere else.

const TOKEN = "bazaar.console.token";
const SILENCE_MAX = 10_000; // ms in which nothing comes: something does every second, if only a part of it where the network is slow
const PAUSE_MIN = 500;
const PAUSE_MAX = 5000;

let token = kept();

function kept() {
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return "";
  }
}

export const hasToken = () => token !== "";

// Keeps a token in this tab. An empty one forgets it.
export function setToken(given) {
  token = given;
  try {
    if (given === "") sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, given);
  } catch { /* a browser that keeps nothing: it is asked for again */ }
}

// Headers carry bytes: of what is not ASCII those of UTF-8.
const header = (text) => String.fromCharCode(...new TextEncoder().encode(text.replace(/[\p{Cc}]+/gu, " ").trim()));

const authorized = () => (token === "" ? {} : { authorization: `Bearer ${header(token)}` });

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function refused(answer) {
  const body = await answer.json().catch(() => undefined);
  const said = body?.error?.message ?? `it answers ${answer.status}`;
  return new Refused(answer.status, said.charAt(0).toUpperCase() + said.slice(1));
}

// What the gateway says, or an error in its words.
export async function ask(path, method = "GET", reason = {}) {
  const headers = authorized();
  if (reason.why) headers["x-reason"] = header(reason.why);
  if (reason.who) headers["x-operator"] = header(reason.who);
  let answer;
  try {
    answer = await fetch(path, { method, headers, cache: "no-store", signal: AbortSignal.timeout(60_000) });
  } catch {
    throw new Refused(0, "The gateway does not answer. Whether it was done is not known: look at the log of changes.");
  }
  if (!answer.ok) throw await refused(answer);
  return answer.json();
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Follows events for as long as the page is there. `on.event` gets each; `on.state` how the link is: `connecting`, `live`,
// `lost`, or `locked` with why, when somebody has to give a token: then it waits for `unlocked`.
export async function follow(on, unlocked) {
  let wait = PAUSE_MIN;
  for (;;) {
    const stop = new AbortController();
    let guard;
    const watch = () => {
      clearTimeout(guard);
      guard = setTimeout(() => stop.abort(), SILENCE_MAX);
    };
    watch();
    let wasLive = false;
    try {
      const answer = await fetch("/console/events", { headers: authorized(), cache: "no-store", signal: stop.signal });
      if (!answer.ok) throw await refused(answer);
      await read(answer.body, watch, (name, data) => {
        if (!wasLive) on.state("live");
        wasLive = true;
        wait = PAUSE_MIN;
        on.event(name, JSON.parse(data));
      });
      wait = 50; // it ended as streams do, or the gateway stops
    } catch (error) {
      if (error.status === 401 || error.status === 403) {
        on.state("locked", error);
        clearTimeout(guard);
        await unlocked();
        on.state("connecting");
        continue;
      }
      on.state("lost", error);
    }
    clearTimeout(guard);
    await pause(wait);
    wait = Math.min(wait * 2, PAUSE_MAX);
  }
}

// Server-sent events (HTML standard, section 9.2.6), as this gateway writes them. Whatever comes is told, whole events or not.
async function read(stream, onBytes, onEvent) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onBytes();
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(event) ?? [];
      if (name) onEvent(name, data);
    }
  }
}
