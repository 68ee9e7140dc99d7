// The lines themselves: only those in view are in the document. Stays at the end while `following`, and says when the reader leaves it.

import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";
import { Icon } from "../ui/Icon";
import { formatFull } from "../ui/time";
import type { DockerEvent, Line } from "./model";
import { pieces, type Search } from "./search";

/** A line without wrapping, px: the style sheet has the same. */
const ROW = 20;
/** A longer line is shown in part until somebody wants all of it, characters; where lines are wrapped. */
const LONG = 1_200;
const PART = 800;
/** Further from the end than NEAR has left it; closer than BACK, on the way down, is there again: meanwhile lines have come. px. */
const NEAR = 24;
const BACK = 80;

interface Props {
  lines: readonly Line[];
  search: Search;
  /** The match that was gone to; another object each time. */
  current: { seq: number } | null;
  label: string;
  times: boolean;
  wrap: boolean;
  /** Several sources that have names of their own, rather than stdout and stderr. */
  named: boolean;
  following: boolean;
  onLeave: () => void;
  onEnd: () => void;
}

export function LogLines(props: Props) {
  const { lines, search, current, label, times, wrap, named, following, onLeave, onEnd } = props;
  const scroller = useRef<HTMLElement>(null);
  const { columns, height } = useBox(scroller);
  const [opened, setOpened] = useState<ReadonlySet<number>>(() => new Set());
  const open = useCallback((seq: number) => setOpened((last) => new Set(last).add(seq)), []);
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => {
      const line = lines[index];
      return wrap && line ? ROW * Math.max(1, Math.ceil(shownLength(line) / columns)) : ROW;
    },
    overscan: 20,
    getItemKey: (index) => lines[index]?.seq ?? index,
    useFlushSync: false, // or it would render, and go to the end, before `scrolled` has heard of the move
  });
  // Wrapping, what stands beside the text, and the width of the window change the height of every line.
  // biome-ignore lint/correctness/useExhaustiveDependencies: on these changes only
  useLayoutEffect(() => {
    rows.measure();
    rows.getTotalSize(); // reckons anew, without the heights that were forgotten: against those the next ones would count as unchanged
    // Nobody tells of rows that are there and have kept their height.
    for (const row of scroller.current?.querySelectorAll<HTMLElement>(".log-row") ?? [])
      rows.resizeItem(Number(row.dataset.index), row.getBoundingClientRect().height);
  }, [wrap, times, columns]);
  const size = rows.getTotalSize();
  /** Whether the reader moves it, or going to a match did. */
  const byHand = useRef(false);
  // Only a move upwards leaves the end: new lines put it further down without anybody's doing.
  const last = useRef(0);
  const moved = () => {
    const box = scroller.current;
    if (!box) return { by: 0, fromEnd: 0 };
    const by = box.scrollTop - last.current;
    last.current = box.scrollTop;
    return { by, fromEnd: box.scrollHeight - box.scrollTop - box.clientHeight };
  };
  // biome-ignore lint/correctness/useExhaustiveDependencies: after every change of the lines or of what they measure
  useLayoutEffect(() => {
    if (!following || lines.length === 0) return;
    const { by, fromEnd } = moved();
    // The reader was faster than the event that tells of it.
    if (by < -1 && fromEnd > NEAR) return onLeave();
    rows.scrollToEnd();
    last.current = scroller.current?.scrollTop ?? 0;
  }, [following, lines, size, height, rows]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: lines that come don't move to the match again
  useEffect(() => {
    byHand.current = false;
    const index = current === null ? -1 : lines.findIndex(({ seq }) => seq === current.seq);
    if (index >= 0) rows.scrollToIndex(index, { align: "center" });
  }, [current, rows]);

  const scrolled = () => {
    const { by, fromEnd } = moved();
    if (following && by < -1 && fromEnd > NEAR) onLeave();
    if (!following && by > 1 && fromEnd < BACK && byHand.current) onEnd();
  };
  const touched = () => {
    byHand.current = true;
  };

  return (
    <section
      className="log-lines"
      ref={scroller}
      onScroll={scrolled}
      onWheel={touched}
      onPointerDown={touched}
      onTouchMove={touched}
      onKeyDown={(event) => {
        touched();
        if (event.target !== event.currentTarget) return;
        // At once: the browser's own way there is an animation, which a line that comes would stop.
        if (event.key === "End") onEnd();
        else if (event.key === "Home") rows.scrollToIndex(0);
        else return;
        event.preventDefault();
      }}
      data-wrap={wrap}
      data-times={times}
      data-named={named}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolled region must be reachable by keyboard
      tabIndex={0}
      aria-label={label}
    >
      {/* biome-ignore lint/a11y/useSemanticElements: rows are placed absolutely inside a spacer, which a ul may not hold */}
      <div role="list" className="log-space" style={{ height: size }}>
        {rows.getVirtualItems().map((row) => {
          const line = lines[row.index];
          return (
            line && (
              // biome-ignore lint/a11y/useSemanticElements: see above
              <div
                key={line.seq}
                role="listitem"
                ref={rows.measureElement}
                data-index={row.index}
                data-testid="log-line"
                data-kind={line.kind}
                data-source={line.source}
                data-current={line.seq === current?.seq || undefined}
                className="log-row"
                style={{ transform: `translateY(${row.start}px)` }}
              >
                <Row
                  line={line}
                  search={search}
                  times={times}
                  named={named}
                  open={wrap && line.text.length > LONG && !opened.has(line.seq) ? open : undefined}
                />
              </div>
            )
          );
        })}
      </div>
    </section>
  );
}

interface RowProps {
  line: Line;
  search: Search;
  times: boolean;
  named: boolean;
  /** Shows all of a long line; undefined when all of it is shown. */
  open: ((seq: number) => void) | undefined;
}

const Row = memo(function Row({ line, search, times, named, open }: RowProps) {
  // What was looked for may be in the part that is not shown.
  const part = open !== undefined && !search.has(line);
  if (line.kind === "gap" || line.kind === "dropped" || line.kind === "note")
    return (
      <p className="log-said">
        <Icon name={line.kind === "note" ? "note" : "warn"} size={15} />
        {times && <Time at={line.at} />}
        <span>
          {line.kind === "gap" && "Lines may be missing: "}
          <Text line={line} search={search} />
        </span>
      </p>
    );
  return (
    <>
      {times && <Time at={line.at} />}
      {named ? (
        <span className="log-source" title={line.source}>
          {line.source?.split("/").pop()}
        </span>
      ) : (
        <span className="log-stream">
          {line.source === "stderr" && (
            <abbr title="written to stderr" aria-label="stderr">
              err
            </abbr>
          )}
        </span>
      )}
      <span className="log-text" data-action={line.event ? tone(line.event) : undefined}>
        <Text line={line} search={search} {...(part ? { most: PART } : {})} />
        {part && (
          <button type="button" className="log-more" onClick={() => open(line.seq)}>
            {(line.text.length - PART).toLocaleString()} more characters
          </button>
        )}
        {line.cut && (
          <span className="log-cut" title="The line is longer than 8 KiB; the rest is not passed on">
            … cut
          </span>
        )}
      </span>
    </>
  );
});

function Text({ line, search, most }: { line: Line; search: Search; most?: number }) {
  const found = search.has(line) ? search.ranges(line.text) : [];
  if (found.length === 0 && !line.spans) return line.text.slice(0, most);
  let at = 0;
  return pieces(line, found, most).map(({ text, span, found }) => {
    const key = at;
    at += text.length;
    const classes = span?.decorations.map((name) => `ansi-${name}`).join(" ") || undefined;
    if (found) return <mark key={key}>{text}</mark>;
    return (
      <span key={key} className={classes} style={span?.look}>
        {text}
      </span>
    );
  });
}

function Time({ at }: { at: number | undefined }) {
  if (at === undefined) return <span className="log-time" />;
  return (
    <time className="log-time" dateTime={new Date(at).toISOString()} title={formatFull(at)}>
      {clock(at)}
    </time>
  );
}

/** Local time to the millisecond. Not by Intl: it is called for every line that comes into view. */
function clock(at: number): string {
  const date = new Date(at);
  const two = (n: number) => String(n).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${time}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** Of what is in the document before anybody asks for more. */
const shownLength = ({ text }: Line): number => (text.length > LONG ? PART + 30 : text.length);

function tone({ action, exit }: DockerEvent): string {
  if (/^(start|create|unpause|health_status: healthy)$/.test(action)) return "good";
  if (action === "oom" || action === "health_status: unhealthy") return "bad";
  return action === "die" && exit !== undefined && exit !== "0" ? "bad" : "plain";
}

/** The height of the box, and about how many characters fit beside one another, to guess the height of a line before it is measured. */
function useBox(ref: React.RefObject<HTMLElement | null>): { columns: number; height: number } {
  const [size, setSize] = useState({ columns: 100, height: 0 });
  useEffect(() => {
    const box = ref.current;
    if (!box) return;
    const watch = new ResizeObserver(() =>
      setSize({ columns: Math.max(20, Math.floor((box.clientWidth - 150) / 7.5)), height: box.clientHeight }),
    );
    watch.observe(box);
    return () => watch.disconnect();
  }, [ref]);
  return size;
}
