export type { ClientInfo, HistoryOptions, HistoryResult } from "centrifuge";
export type { ChannelEvents, ChannelSnapshot, Publication } from "./channel.ts";
export {
  type Close,
  Connection,
  type ConnectionEvents,
  type ConnectionOptions,
  type ConnectionSnapshot,
  type ConnectionState,
  type Message,
  type Recovery,
  UnauthorizedError,
} from "./connection.ts";
export {
  type PresenceEvents,
  TidelineProvider,
  type TidelineProviderProps,
  type UseChannel,
  type UseConnection,
  type UsePresence,
  useChannel,
  useConnection,
  usePresence,
  useTideline,
} from "./hooks.tsx";
