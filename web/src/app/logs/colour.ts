// The colours that a log brings itself, made readable on the page: lighter or darker until the contrast suffices, for both schemes at once.

export type Rgb = readonly [number, number, number];

/** The grounds of a log's lines in the two schemes: --surface in styles/tokens.css. */
export const GROUNDS: { readonly light: Rgb; readonly dark: Rgb } = {
  light: [255, 254, 251],
  dark: [18, 27, 31],
};
/** The text's own colours there: --ink. */
export const INKS: { readonly light: Rgb; readonly dark: Rgb } = {
  light: [22, 38, 43],
  dark: [230, 238, 238],
};
/** The least contrast of text and ground (WCAG 2, level AA), and a little for rounding. */
export const CONTRAST = 4.6;
const BLACK: Rgb = [0, 0, 0];
const WHITE: Rgb = [255, 255, 255];
/** Steps from a colour to black or white. */
const STEPS = 20;
/** Pairs that are remembered; a log that invents more pays for each again. */
const REMEMBERED = 2_000;

export interface Look {
  color?: string;
  backgroundColor?: string;
}

const looks = new Map<string, Look>();

/** How text with this colour and ground, "r, g, b" each and either absent, is shown. The answer is shared: don't change it. */
export function lookOf(fg: string | null, bg: string | null): Look {
  const key = `${fg}/${bg}`;
  let look = looks.get(key);
  if (!look) {
    if (looks.size >= REMEMBERED) looks.clear();
    look = readable(parse(fg), parse(bg));
    looks.set(key, look);
  }
  return look;
}

function readable(fg: Rgb | undefined, bg: Rgb | undefined): Look {
  if (!fg && !bg) return {};
  if (!bg) {
    const [light, dark] = (["light", "dark"] as const).map((s) => legible(fg ?? INKS[s], GROUNDS[s]));
    return { color: `light-dark(${css(light ?? BLACK)}, ${css(dark ?? WHITE)})` };
  }
  const darkInk = contrast(INKS.light, bg) >= contrast(INKS.dark, bg);
  return {
    color: css(legible(fg ?? (darkInk ? INKS.light : INKS.dark), bg)),
    backgroundColor: css(bg),
  };
}

/** The colour nearest to `colour`, on the way to black or to white, that can be read on `ground`. */
export function legible(colour: Rgb, ground: Rgb): Rgb {
  if (contrast(colour, ground) >= CONTRAST) return colour;
  // Whichever end is further from the ground reaches the contrast.
  const end = contrast(BLACK, ground) > contrast(WHITE, ground) ? BLACK : WHITE;
  for (let step = 1; step < STEPS; step++) {
    const mixed = mix(colour, end, step / STEPS);
    if (contrast(mixed, ground) >= CONTRAST) return mixed;
  }
  return end;
}

export function contrast(a: Rgb, b: Rgb): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const mix = (from: Rgb, to: Rgb, share: number): Rgb =>
  from.map((value, i) => Math.round(value + ((to[i] ?? 0) - value) * share)) as unknown as Rgb;

const css = (colour: Rgb): string => `rgb(${colour.join(" ")})`;

function parse(text: string | null): Rgb | undefined {
  if (text === null) return undefined;
  const parts = text.split(",").map(Number);
  return parts.length === 3 && parts.every((part) => part >= 0 && part <= 255)
    ? (parts as unknown as Rgb)
    : undefined;
}
