// The tasks of this user: read when the page starts (so they survive a reload), kept up by `user:#<user>`.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useQueryChannel } from "@tideline/react/query";
import { useCallback, useMemo, useState } from "react";
import { Problem } from "../api";
import { backoff } from "../backoff";
import { useSession } from "../session";
import { read, write } from "../ui/theme";
import { merge, shown, type Task, type TaskEvent, type TaskTable } from "./model";

/** The most that a request carries itself, bytes; larger files are uploaded first. Both limits are the server's. */
const INLINE_MAX = 900 * 1024;
export const FILE_MAX = 20 * 1024 * 1024;

const DISMISSED_KEY = "tideline.tasks.dismissed";
const DISMISSED_MAX = 50;
const EMPTY: TaskTable = new Map();

interface Link {
  url: string;
  method: string;
  headers?: Record<string, string>;
}

export interface Tasks {
  tasks: readonly Task[];
  startExport: (format: Task["format"]) => Promise<void>;
  startImport: (file: File) => Promise<void>;
  cancel: (id: string) => Promise<void>;
  /** The rows that an import left out, with the reasons. */
  problems: (id: string) => Promise<NonNullable<Task["errors"]>>;
  /** A link to what was exported; it expires. */
  download: (id: string) => Promise<string>;
  dismiss: (id: string) => void;
}

export function useTasks(): Tasks {
  const { user, api } = useSession();
  const queries = useQueryClient();
  const queryKey = useMemo(() => ["tasks", user] as const, [user]);
  const [dismissed, setDismissed] = useState(rememberedDismissed);
  const take = useCallback(
    (tasks: readonly Task[]) =>
      queries.setQueryData<TaskTable>(queryKey, (table) => merge(table ?? EMPTY, tasks)),
    [queries, queryKey],
  );
  const { data: table = EMPTY } = useQuery({
    queryKey,
    queryFn: async ({ signal }) => {
      const { data } = await api<{ items: Task[] }>("/api/tasks", { signal });
      return merge(queries.getQueryData<TaskTable>(queryKey) ?? EMPTY, data.items);
    },
    retry: 2,
    retryDelay: (failures) => backoff(failures),
    refetchOnWindowFocus: false,
    staleTime: Number.POSITIVE_INFINITY,
    structuralSharing: false,
  });
  useQueryChannel<TaskEvent>(`user:#${user}`, {
    queryKey,
    onPublication: ({ data }) => {
      if (data.task) take([data.task]);
    },
  });

  const start = async (body: object) => {
    take([(await api<Task>("/api/tasks", { method: "POST", body })).data]);
  };
  const one = async (id: string) => (await api<Task & { download?: Link }>(`/api/tasks/${id}`)).data;

  return {
    tasks: useMemo(() => shown(table, dismissed, Date.now()), [table, dismissed]),
    startExport: (format) => start({ kind: "export", format }),
    startImport: async (file) => {
      const format = /\.csv$/i.test(file.name) || file.type === "text/csv" ? "csv" : "json";
      if (file.size > FILE_MAX) throw new Problem(413, "Too large", "A file to import has at most 20 MB.");
      if (file.size === 0) throw new Problem(422, "Empty", "The file is empty.");
      if (file.size <= INLINE_MAX) return start({ kind: "import", format, data: await file.text() });
      const { data } = await api<{ id: string; link: Link }>("/api/tasks/uploads", {
        method: "POST",
        body: { format, bytes: file.size },
      });
      await upload(data.link, file);
      return start({ kind: "import", format, upload: data.id });
    },
    cancel: async (id) => {
      take([(await api<Task>(`/api/tasks/${id}`, { method: "DELETE" })).data]);
    },
    problems: async (id) => (await one(id)).errors ?? [],
    download: async (id) => {
      const { download } = await one(id);
      if (!download) throw new Problem(410, "Gone", "The file is not there any more; export again.");
      return download.url;
    },
    dismiss: (id) => {
      const next = new Set([...dismissed, id].slice(-DISMISSED_MAX));
      write(DISMISSED_KEY, [...next].join(" "));
      setDismissed(next);
    },
  };
}

/** How long an upload may take, milliseconds: 20 MB at a slow phone's speed. */
const UPLOAD_DEADLINE = 5 * 60_000;

async function upload(link: Link, file: File): Promise<void> {
  let response: Response;
  try {
    response = await fetch(link.url, {
      method: link.method,
      headers: link.headers ?? {},
      body: file,
      signal: AbortSignal.timeout(UPLOAD_DEADLINE),
    });
  } catch {
    throw new Problem(0, "Not uploaded", "The upload was interrupted.");
  }
  if (!response.ok)
    throw new Problem(response.status, "Not uploaded", `The upload was refused (${response.status}).`);
}

function rememberedDismissed(): ReadonlySet<string> {
  return new Set((read(DISMISSED_KEY) ?? "").split(" ").filter(Boolean));
}
