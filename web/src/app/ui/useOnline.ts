import { useSyncExternalStore } from "react";

function watch(changed: () => void): () => void {
  window.addEventListener("online", changed);
  window.addEventListener("offline", changed);
  return () => {
    window.removeEventListener("online", changed);
    window.removeEventListener("offline", changed);
  };
}

/** What the browser says of the network. False is certain; true only means that it might work. */
export function useOnline(): boolean {
  return useSyncExternalStore(watch, () => navigator.onLine);
}
