// The lines themselves: only those in view are in the document. Stays at the end while `following`, and says when the reader leaves it.

import { useVirtualizer } from "@tanstack/react-virtual";
import { memo, useEffect, useLayoutEffect, useRef, useState } from "react";
import { Icon } from "../ui/Icon";
import { formatFull } from "../ui/time";
import type { Line } from "./model";
import { pieces, type Search } from "./search";

/** A line without wrapping, px: the style sheet has the same. */
const ROW = 20;
/** Closer to the end than this counts as being there, px. */
const NEAR = 24;

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
  const columns = useColumns(scroller);
  const rows = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => {
      const line = lines[index];
      return wrap && line ? ROW * Math.max(1, Math.ceil(line.text.length / columns)) : ROW;
    },
    overscan: 20,
    getItemKey: (index) => lines[index]?.seq ?? index,
    anchorTo: "end",
    scrollEndThreshold: NEAR,
  });
  // Wrapping, or the columns beside the text, change the height of every line.
  // biome-ignore lint/correctness/useExhaustiveDependencies: on these changes only
  useLayoutEffect(() => rows.measure(), [wrap, times]);
  const size = rows.getTotalSize();
  // biome-ignore lint/correctness/useExhaustiveDependencies: after every change of the lines or of their heights
  useLayoutEffect(() => {
    if (following && lines.length > 0) rows.scrollToEnd();
  }, [following, lines, size, rows]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: lines that come don't move to the match again
  useEffect(() => {
    const index = current === null ? -1 : lines.findIndex(({ seq }) => seq === current.seq);
    if (index >= 0) rows.scrollToIndex(index, { align: "center" });
  }, [current, rows]);

  // Only a move upwards leaves the end: new lines put it further down without anybody's doing.
  const last = useRef(0);
  const scrolled = () => {
    const box = scroller.current;
    if (!box) return;
    const fromEnd = box.scrollHeight - box.scrollTop - box.clientHeight;
    const up = box.scrollTop < last.current - 1;
    last.current = box.scrollTop;
    if (following && up && fromEnd > NEAR) onLeave();
    if (!following && !up && fromEnd <= 1) onEnd();
  };

  return (
    <section
      className="log-lines"
      ref={scroller}
      onScroll={scrolled}
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
                <Row line={line} search={search} times={times} named={named} />
              </div>
            )
          );
        })}
      </div>
    </section>
  );
}

const Row = memo(function Row(props: { line: Line; search: Search; times: boolean; named: boolean }) {
  const { line, search, times, named } = props;
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
      <span className="log-text" data-action={line.event ? tone(line.event.action) : undefined}>
        <Text line={line} search={search} />
        {line.cut && (
          <span className="log-cut" title="The line is longer than 8 KiB; the rest is not passed on">
            … cut
          </span>
        )}
      </span>
    </>
  );
});

function Text({ line, search }: { line: Line; search: Search }) {
  const found = search.has(line) ? search.ranges(line.text) : [];
  if (found.length === 0 && !line.spans) return line.text;
  let at = 0;
  return pieces(line, found).map(({ text, span, found }) => {
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

function tone(action: string): string {
  if (/^(start|create|unpause|health_status: healthy)$/.test(action)) return "good";
  if (/^(die|kill|oom|destroy|health_status: unhealthy)$/.test(action)) return "bad";
  return "plain";
}

/** About how many characters fit beside one another, to guess the height of a line before it is measured. */
function useColumns(ref: React.RefObject<HTMLElement | null>): number {
  const [columns, setColumns] = useState(100);
  useEffect(() => {
    const box = ref.current;
    if (!box) return;
    const watch = new ResizeObserver(() =>
      setColumns(Math.max(20, Math.floor((box.clientWidth - 150) / 7.5))),
    );
    watch.observe(box);
    return () => watch.disconnect();
  }, [ref]);
  return columns;
}
