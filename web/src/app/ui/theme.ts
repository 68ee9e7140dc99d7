// Light, dark, or what the system says. Applied before the first render; kept in this browser.
import { useState } from "react";

export type Theme = "auto" | "light" | "dark";
const KEY = "tideline.theme";

export function applyTheme(theme: Theme = stored()): void {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function stored(): Theme {
  const value = read(KEY);
  return value === "light" || value === "dark" ? value : "auto";
}

export function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, set] = useState(stored);
  return [
    theme,
    (next) => {
      set(next);
      write(KEY, next);
      applyTheme(next);
    },
  ];
}

/** Storage may be denied (private windows, policies): then nothing is remembered, and nothing breaks. */
export function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

export function write(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // not remembered
  }
}
