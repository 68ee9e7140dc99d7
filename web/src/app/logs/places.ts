// What the operators' view of logs can show, and its address on the page.

export type Place =
  | { kind: "none" }
  | { kind: "container"; name: string; events: boolean }
  | { kind: "events" }
  | { kind: "group"; name: string };

export const HASH = "#logs";

/** What node/stream takes for a container's name, and for a log group's. */
const CONTAINER = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,127}$/;
export const GROUP = /^[a-zA-Z0-9_/.-]{1,240}$/;

export function placeOf(hash: string): Place {
  const [head, what, name, more] = hash.split("/");
  if (head !== HASH) return { kind: "none" };
  if (what === "events" && name === undefined) return { kind: "events" };
  const decoded = decode(name ?? "");
  if (what === "container" && CONTAINER.test(decoded))
    return { kind: "container", name: decoded, events: more === "events" };
  if (what === "group" && GROUP.test(decoded)) return { kind: "group", name: decoded };
  return { kind: "none" };
}

export function hashOf(place: Place): string {
  switch (place.kind) {
    case "container":
      return `${HASH}/container/${encodeURIComponent(place.name)}${place.events ? "/events" : ""}`;
    case "events":
      return `${HASH}/events`;
    case "group":
      return `${HASH}/group/${encodeURIComponent(place.name)}`;
    default:
      return HASH;
  }
}

export function channelOf(place: Exclude<Place, { kind: "none" }>): string {
  switch (place.kind) {
    case "container":
      return `docker:${place.events ? "events" : "logs"}:${place.name}`;
    case "events":
      return "docker:events";
    case "group":
      return `logs:${place.name}`;
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
