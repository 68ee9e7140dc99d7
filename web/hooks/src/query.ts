// Entry `@tideline/react/query`: a channel that keeps a TanStack Query cache honest.
import { type QueryKey, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useRef } from "react";
import type { ChannelEvents } from "./channel.ts";
import { type UseChannel, useChannel } from "./hooks.tsx";
import { useLatest } from "./latest.ts";

export interface RefetchOptions {
  /** The queries to invalidate when publications were missed that can't be replayed. */
  queryKey: QueryKey;
  /** The refetch waits a random time up to this, milliseconds (2,000), so that a thousand tabs don't ask at once. */
  jitter?: number;
}

/**
 * `useChannel`, and a refetch of `queryKey` whenever the channel's history could not fill a gap. A first subscribe also refetches,
 * at once, because what was published between the query and the subscription was not heard.
 */
export function useQueryChannel<T = unknown>(
  channel: string | null,
  { queryKey, jitter = 2_000, ...events }: ChannelEvents<T> & RefetchOptions,
): UseChannel {
  const queries = useQueryClient();
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const key = useLatest(queryKey);
  const refetch = useCallback(
    (within: number) => {
      clearTimeout(timer.current);
      const run = () => void queries.invalidateQueries({ queryKey: key.current });
      timer.current = within > 0 ? setTimeout(run, Math.random() * within) : undefined;
      if (within <= 0) run();
    },
    [queries, key],
  );
  useEffect(() => () => clearTimeout(timer.current), []);
  return useChannel<T>(channel, {
    ...events,
    onSubscribed: (context) => {
      if (context.fresh) refetch(context.first ? 0 : jitter);
      events.onSubscribed?.(context);
    },
    onResync: () => {
      refetch(jitter);
      events.onResync?.();
    },
  });
}
