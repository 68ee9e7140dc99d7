// Parts of the page that are fetched when they are needed, over a network that may be away just then.

import { type ComponentType, lazy } from "react";

/** How often a part is asked for: for about two minutes. What has not come by then is not there, and the Failure around it says so. */
export const TRIES = 12;
/** The first and the longest wait between two tries, milliseconds; half of each is left to chance. */
const FIRST = 500;
const LONGEST = 15_000;

export function later<P>(load: () => Promise<{ default: ComponentType<P> }>) {
  return lazy(() => insist(load));
}

export async function insist<T>(load: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await load();
    } catch (error) {
      if (tries === TRIES) throw error;
      const wait = Math.min(FIRST * 2 ** (tries - 1), LONGEST);
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
    }
  }
}
