// What a terminal would make of a line: its text without escape sequences, and the parts of it that have colours.
// `anser` reads the colours (SGR). All else that moves cursors or titles windows is taken out before.

// biome-ignore-all lint/suspicious/noControlCharactersInRegex: control characters are the subject
import Anser, { type AnserJsonEntry } from "anser";
import { type Look, lookOf } from "./colour";

/** What `anser` says of a chunk; its types don't know of the last. */
type Chunk = AnserJsonEntry & { isInverted: boolean };
const BLACK = "0, 0, 0";
const WHITE = "255,255,255";

/** A part of a line. `look` and `decorations` are for a style and class names; `text` is plain. */
export interface Span {
  text: string;
  look: Look;
  decorations: readonly string[];
}

export interface Coloured {
  text: string;
  /** Absent when nothing is coloured. */
  spans?: readonly Span[];
}

const ESC = "\u001b";
/** Shows what comes after it as before: "default font", which has no meaning on a page. */
const AS_BEFORE = `${ESC}[10m`;
/** A line with more escape sequences than this is shown without its colours. */
export const SEQUENCES_MAX = 400;
const KNOWN = new Set(["bold", "dim", "italic", "underline", "strikethrough"]);

// Strings that end with BEL or ST (titles, links), and sequences of two or three characters.
const STRINGS =
  /\u001b[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\|$)|\u001b[ #%()*+][0-9A-Za-z]?|\u001b[^[\]PX^_]/g;
// Control sequences that are not SGR, and one that the end of the line cut off. Each begins at an ESC and is read once: a hostile line costs
// no more than its length.
const MOVES = /\u001b\[(?:[<-?][0-?]*[ -/]*[@-~]|[0-?]*[ -/]+[@-~]|[0-?]*(?:[@-ln-~]|$))/g;
const SGR = /\u001b\[([0-9;:]*)m/g;
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/**
 * One stream of lines. Colours go on from line to line, as on a terminal, until `reset`: after a hole nobody knows what they were.
 */
export class Ansi {
  #parser = new Anser();
  /** Whether the last line left a colour on. */
  #open = false;

  reset(): void {
    this.#parser = new Anser();
    this.#open = false;
  }

  line(raw: string): Coloured {
    if (!raw.includes(ESC)) {
      const text = tidy(raw);
      if (!this.#open || text === "") return { text };
    }
    if (raw.split(ESC, SEQUENCES_MAX + 2).length > SEQUENCES_MAX + 1) {
      this.reset();
      return { text: tidy(simplify(raw).replace(SGR, "")) };
    }
    const chunks = this.#parser.ansiToJson(AS_BEFORE + lastWritten(simplify(raw)), {
      json: true,
    }) as unknown as readonly Chunk[];
    const spans: Span[] = [];
    let text = "";
    let plain = true;
    for (const { content, fg, bg, decorations, isInverted } of chunks) {
      const part = tidy(content);
      if (part === "") continue;
      const known = [...new Set<string>(decorations)].filter((name) => KNOWN.has(name));
      // Neither had a colour: the page's own change places, and `anser` knows nothing of those.
      const swapped = isInverted && fg === BLACK && bg === WHITE;
      if (swapped) known.push("reverse");
      const look = swapped ? {} : lookOf(fg, bg);
      if (fg || bg || known.length > 0) plain = false;
      spans.push({ text: part, look, decorations: known });
      text += part;
    }
    const state = this.#parser as unknown as { fg: unknown; bg: unknown; decorations: string[] };
    // What is switched on twice is on once: `anser` would count, and keep all of it.
    state.decorations = [...new Set(state.decorations)];
    this.#open = state.fg !== null || state.bg !== null || state.decorations.length > 0;
    return plain ? { text } : { text, spans };
  }
}

/** Leaves SGR sequences alone, in the form with semicolons. */
function simplify(raw: string): string {
  return raw
    .replace(STRINGS, "")
    .replace(MOVES, "")
    .replace(SGR, (whole, all: string) =>
      all.includes(":") ? `${ESC}[${all.split(";").map(semicolons).join(";")}m` : whole,
    );
}

/** "38:2::1:2:3" and "38:5:9" as everybody writes them; the kinds of underline are all one. */
function semicolons(part: string): string {
  if (!part.includes(":")) return part;
  const [what, mode, ...rest] = part.split(":");
  if (what === "4") return mode === "0" ? "24" : "4";
  if (what !== "38" && what !== "48") return "10";
  // The true colour may have a colour space in front of its three numbers.
  const numbers = mode === "2" && rest.length > 3 ? rest.slice(1, 4) : rest;
  return [what, mode, ...numbers].join(";");
}

/** A progress bar overwrites itself: what was written after the last carriage return is what one would see. Colours of before hold. */
function lastWritten(raw: string): string {
  const end = raw.replace(/\r+$/, "");
  const from = end.lastIndexOf("\r");
  if (from < 0) return end;
  const colours = end.slice(0, from).match(SGR) ?? [];
  return colours.join("") + end.slice(from + 1);
}

/** Tabs as they are; of the other control characters nothing is to be seen. */
function tidy(text: string): string {
  const last = text.lastIndexOf("\r", text.length - 2);
  return (last < 0 ? text : text.slice(last + 1)).replace(CONTROLS, "");
}
