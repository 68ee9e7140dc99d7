// Guests have ids, not names. People tell shore birds apart more easily than hexadecimal; the id stays one hover away.
const MOODS = [
  "Amber",
  "Ashen",
  "Brisk",
  "Calm",
  "Copper",
  "Coral",
  "Dawn",
  "Drifting",
  "Dusky",
  "Early",
  "Fleet",
  "Gentle",
  "Golden",
  "Grey",
  "Hazel",
  "Keen",
  "Lively",
  "Lunar",
  "Mellow",
  "Misty",
  "Northern",
  "Pale",
  "Quiet",
  "Rapid",
  "Russet",
  "Sandy",
  "Silver",
  "Slate",
  "Solar",
  "Southern",
  "Stormy",
  "Swift",
];
const BIRDS = [
  "Avocet",
  "Bittern",
  "Cormorant",
  "Crane",
  "Curlew",
  "Dunlin",
  "Egret",
  "Eider",
  "Fulmar",
  "Gannet",
  "Godwit",
  "Grebe",
  "Gull",
  "Heron",
  "Ibis",
  "Kestrel",
  "Kittiwake",
  "Knot",
  "Lapwing",
  "Merlin",
  "Osprey",
  "Petrel",
  "Plover",
  "Puffin",
  "Rail",
  "Sanderling",
  "Shearwater",
  "Skua",
  "Stilt",
  "Tern",
  "Turnstone",
  "Whimbrel",
];

/** FNV-1a, 32 bits: the same id gives the same name and hue in every browser. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return h;
}

export function nameOf(user: string): string {
  const h = hash(user);
  return `${MOODS[h % MOODS.length]} ${BIRDS[(h >>> 5) % BIRDS.length]}`;
}

export function initialsOf(user: string): string {
  return nameOf(user)
    .split(" ")
    .map((word) => word[0])
    .join("");
}

/** One of the eight hues of avatars. */
export function hueOf(user: string): number {
  return (hash(user) >>> 11) % 8;
}
