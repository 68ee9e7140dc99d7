// The colours that a log brings itself, made readable on the page: lighter or darker until the contrast suffices, for both schemes at once.

export type Rgb = readonly [number, number, number];

/** The least friendly grounds that a line can have in the two schemes: --accent-soft in styles/tokens.css, of the match that was gone to. */
export const GROUNDS: { readonly light: Rgb; readonly dark: Rgb } = {
  light: [220, 237, 236],
  dark: [20, 55, 58],
};
/** The text's own colours there: --ink. */
const INKS: { readonly light: Rgb; readonly dark: Rgb } = {
  light: [22, 38, 43],
  dark: [230, 238, 238],
};
/** The sixteen colours that a terminal chooses itself, by what `anser` calls them: here the page does, in its own tones. */
const OWN: Record<string, { readonly light: Rgb; readonly dark: Rgb }> = {
  "0, 0, 0": { light: [22, 38, 43], dark: [143, 163, 168] },
  "187, 0, 0": { light: [171, 47, 34], dark: [255, 138, 122] },
  "0, 187, 0": { light: [27, 107, 69], dark: [111, 211, 155] },
  "187, 187, 0": { light: [134, 83, 0], dark: [240, 189, 97] },
  "0, 0, 187": { light: [58, 82, 168], dark: [148, 176, 240] },
  "187, 0, 187": { light: [148, 58, 124], dark: [229, 154, 208] },
  "0, 187, 187": { light: [11, 93, 102], dark: [98, 208, 198] },
  "85, 85, 85": { light: [84, 98, 102], dark: [143, 163, 168] },
  "255, 85, 85": { light: [190, 40, 28], dark: [255, 154, 138] },
  "0, 255, 0": { light: [20, 118, 62], dark: [140, 230, 170] },
  "255, 255, 85": { light: [140, 88, 0], dark: [250, 210, 120] },
  "85, 85, 255": { light: [60, 78, 200], dark: [170, 192, 255] },
  "255, 85, 255": { light: [170, 40, 140], dark: [245, 175, 225] },
  "85, 255, 255": { light: [0, 100, 115], dark: [140, 230, 224] },
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
    look = bg === null && fg !== null && OWN[fg] ? both(OWN[fg]) : readable(parse(fg), parse(bg));
    looks.set(key, look);
  }
  return look;
}

function readable(fg: Rgb | undefined, bg: Rgb | undefined): Look {
  if (!fg && !bg) return {};
  if (!bg) return both({ light: fg ?? INKS.light, dark: fg ?? INKS.dark });
  const darkInk = contrast(INKS.light, bg) >= contrast(INKS.dark, bg);
  return {
    color: css(legible(fg ?? (darkInk ? INKS.light : INKS.dark), bg)),
    backgroundColor: css(bg),
  };
}

function both({ light, dark }: { light: Rgb; dark: Rgb }): Look {
  return { color: `light-dark(${css(legible(light, GROUNDS.light))}, ${css(legible(dark, GROUNDS.dark))})` };
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
