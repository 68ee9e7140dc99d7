// Who is on a channel: a whole list now and then, joins and leaves in between. Pure data.
import type { ClientInfo } from "centrifuge";

export type Clients = ReadonlyMap<string, ClientInfo>;

interface Move {
  info: ClientInfo;
  joined: boolean;
}

export class Members {
  #clients: Clients = new Map();
  /** Joins and leaves carry no position: those that arrive while the whole is being read are applied to it again. */
  #parked: Move[] | undefined;
  #turn = 0;

  get clients(): Clients {
    return this.#clients;
  }

  /** Begins to read the whole; what an earlier reading brings is not taken any more. Answers the turn to give to `read`. */
  reading(): number {
    this.#parked = [];
    return ++this.#turn;
  }

  isCurrent(turn: number): boolean {
    return turn === this.#turn;
  }

  /** Takes the whole, as it was at some moment since `reading`. False if another reading has begun. */
  read(turn: number, whole: Record<string, ClientInfo>): boolean {
    if (!this.isCurrent(turn)) return false;
    const clients = new Map(Object.entries(whole));
    for (const move of this.#parked ?? []) apply(clients, move);
    this.#parked = undefined;
    this.#clients = clients;
    return true;
  }

  /** Takes a join or a leave. */
  move(info: ClientInfo, joined: boolean): void {
    const move = { info, joined };
    this.#parked?.push(move);
    const clients = new Map(this.#clients);
    apply(clients, move);
    this.#clients = clients;
  }

  clear(): void {
    this.#turn++;
    this.#parked = undefined;
    this.#clients = new Map();
  }
}

function apply(clients: Map<string, ClientInfo>, { info, joined }: Move): void {
  if (joined) clients.set(info.client, info);
  else clients.delete(info.client);
}
