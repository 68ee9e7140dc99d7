import { useEffect, useRef } from "react";
import uPlot from "uplot";
import { formatSeconds } from "../ui/time";
import type { FleetHistory } from "./model";

/** Colours of lines, in the order of the nodes' names; a ninth node has the first colour again. */
const COLORS = 8;
/** How much of the past is shown, seconds. */
const WINDOW_S = 600;
const stepped = uPlot.paths.stepped?.({ align: 1 });

export default function FleetChart({ history, at }: { history: FleetHistory; at: number }) {
  const holder = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const nodes = history.nodes();
  const names = nodes.join(" ");

  // biome-ignore lint/correctness/useExhaustiveDependencies: drawn anew when the set of nodes changes; data follows below
  useEffect(() => {
    const box = holder.current;
    if (!box || nodes.length === 0) return;
    const color = (name: string) => () => getComputedStyle(box).getPropertyValue(name).trim();
    const plot = new uPlot(
      {
        width: box.clientWidth || 600,
        height: box.clientHeight || 180,
        legend: { show: false },
        cursor: { show: false },
        padding: [8, 8, 0, 0],
        scales: {
          x: {
            time: true,
            // Always the whole window: a first reading alone has no width.
            range: (_u, _min, max) => {
              const end = Number.isFinite(max) ? max : Date.now() / 1000;
              return [end - WINDOW_S, end];
            },
          },
          y: {
            range: (_u, _min, max) => [0, Math.max(4, Math.ceil((Number.isFinite(max) ? max : 0) * 1.2))],
          },
        },
        axes: [
          {
            stroke: color("--ink-faint"),
            font: "11px system-ui",
            grid: { show: false },
            ticks: { show: false },
            size: 26,
            space: 90,
            values: (_u, ticks) => ticks.map((at) => formatSeconds(at * 1000)),
          },
          {
            size: 42,
            space: 32,
            incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000],
            stroke: color("--ink-faint"),
            font: "11px system-ui",
            grid: { stroke: color("--line"), width: 1 },
            ticks: { show: false },
          },
        ],
        series: [
          {},
          ...nodes.map((_, i) => ({
            stroke: color(`--series-${(i % COLORS) + 1}`),
            width: 2,
            points: { show: false },
            // Counts hold until the next reading.
            ...(stepped ? { paths: stepped } : {}),
          })),
        ],
      },
      dataOf(history, nodes),
      box,
    );
    chart.current = plot;
    const resize = new ResizeObserver(() => {
      if (box.clientWidth > 0) plot.setSize({ width: box.clientWidth, height: box.clientHeight });
    });
    resize.observe(box);
    const themed = new MutationObserver(() => plot.redraw(false, true));
    themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => plot.redraw(false, true);
    scheme.addEventListener("change", repaint);
    return () => {
      resize.disconnect();
      themed.disconnect();
      scheme.removeEventListener("change", repaint);
      plot.destroy();
      chart.current = null;
    };
  }, [names]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: once for every reading
  useEffect(() => chart.current?.setData(dataOf(history, history.nodes())), [at]);

  return (
    <>
      <div
        className="fleet-plot"
        ref={holder}
        role="img"
        aria-label="Connections of each node over the last ten minutes"
      />
      <p className="legend">
        {nodes.map((node, i) => (
          <span key={node} data-color={(i % COLORS) + 1}>
            {node}
          </span>
        ))}
      </p>
    </>
  );
}

function dataOf(history: FleetHistory, nodes: readonly string[]): uPlot.AlignedData {
  return [
    history.times().map((at) => at / 1000),
    ...nodes.map((node) => [...history.values(node)]),
  ] as uPlot.AlignedData;
}
