// The list of containers: read anew when Docker says that something has happened, and now and then.

import { useQuery } from "@tanstack/react-query";
import { useChannel, useConnection } from "@tideline/react";
import { useEffect, useRef } from "react";

export interface Container {
  id: string;
  name: string;
  image: string;
  /** created, running, paused, restarting, removing, exited, dead */
  state: string;
  /** For people: "Up 2 hours". */
  status: string;
  created: number;
  ports?: string[];
}

/** The list is read at least this often: "Up 2 hours" grows old. And while it can't be read, milliseconds. */
const EVERY = 30_000;
const AGAIN = 5_000;
/** Events come in bursts: a restart is five. One reading for all, milliseconds. */
const TOGETHER = 400;

/** What this deployment can show. */
export interface Sources {
  docker: boolean;
  groups: boolean;
}

export function useSources() {
  const { rpc, isConnected } = useConnection();
  return useQuery({
    queryKey: ["streams"],
    queryFn: async (): Promise<Sources> => {
      const { namespaces } = await rpc<{ namespaces: string[] }>("streams");
      return { docker: namespaces.includes("docker"), groups: namespaces.includes("logs") };
    },
    enabled: isConnected,
    retry: false,
    refetchInterval: ({ state }) => (state.status === "error" ? AGAIN : false),
  });
}

export function useContainers(enabled: boolean) {
  const { rpc, isConnected } = useConnection();
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const query = useQuery({
    queryKey: ["containers"],
    queryFn: () => rpc<{ containers: Container[]; total: number }>("docker.containers"),
    enabled: enabled && isConnected,
    retry: false,
    refetchInterval: ({ state }) => (state.status === "error" ? AGAIN : EVERY),
  });
  const { refetch } = query;
  const soon = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void refetch(), TOGETHER);
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  useChannel(enabled ? "docker:events" : null, { onPublication: soon, onSubscribed: soon });
  return query;
}
