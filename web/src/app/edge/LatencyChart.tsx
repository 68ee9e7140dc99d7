// The last two minutes of latency. Loaded after the page stands; the numbers beside it say the same in text.
import { useEffect, useRef } from "react";
import uPlot from "uplot";
import type { Sample, Telemetry } from "./telemetry";

const WINDOW = 120;

export default function LatencyChart({ telemetry }: { telemetry: Telemetry }) {
  const holder = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const latest = useRef(telemetry);
  latest.current = telemetry;

  useEffect(() => {
    const box = holder.current;
    if (!box) return;
    const plot = make(box, latest.current);
    chart.current = plot;
    const resize = new ResizeObserver(() => {
      if (box.clientWidth > 0) plot.setSize({ width: box.clientWidth, height: box.clientHeight });
    });
    resize.observe(box);
    // Time passes even when nothing arrives.
    const timer = setInterval(() => plot.setData(align(latest.current)), 1000);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => plot.redraw(false, true);
    scheme.addEventListener("change", repaint);
    const themed = new MutationObserver(repaint);
    themed.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return () => {
      clearInterval(timer);
      resize.disconnect();
      themed.disconnect();
      scheme.removeEventListener("change", repaint);
      plot.destroy();
    };
  }, []);
  useEffect(() => chart.current?.setData(align(telemetry)), [telemetry]);

  return (
    <div className="chart-holder" ref={holder} role="img" aria-label="Latency over the last two minutes" />
  );
}

function make(box: HTMLElement, telemetry: Telemetry): uPlot {
  const color = (name: string) => () => getComputedStyle(box).getPropertyValue(name).trim();
  const now = () => Date.now() / 1000;
  return new uPlot(
    {
      width: box.clientWidth || 300,
      height: box.clientHeight || 120,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 4, 8, 0],
      scales: {
        x: { time: true, range: () => [now() - WINDOW, now()] },
        y: { range: (_u, _min, max) => [0, Math.max(10, (Number.isFinite(max) ? max : 0) * 1.25)] },
      },
      axes: [
        { show: false },
        {
          size: 42,
          gap: 4,
          space: 28,
          font: "11px system-ui",
          stroke: color("--ink-faint"),
          values: (_u, ticks) => ticks.map((ms) => (ms < 1000 ? `${ms} ms` : `${ms / 1000} s`)),
          grid: { stroke: color("--line"), width: 1 },
          ticks: { show: false },
        },
      ],
      series: [
        {},
        { stroke: color("--series-trip"), width: 1.5, spanGaps: true, points: { show: false } },
        {
          stroke: color("--series-publish"),
          // One dot for each publication: a line between them would invent values where nothing was published.
          paths: () => null,
          points: { show: true, size: 6, width: 0, fill: color("--series-publish") },
        },
      ],
    },
    align(telemetry),
    box,
  );
}

/** Both series on one time axis, as the chart wants them. */
function align({ latency, trips }: Telemetry): uPlot.AlignedData {
  const table = (samples: readonly Sample[]): uPlot.AlignedData => [
    samples.map(({ at }) => at / 1000),
    samples.map(({ ms }) => ms),
  ];
  if (latency.length === 0 && trips.length === 0) return [[], [], []];
  const joined = uPlot.join([table(dedupe(trips)), table(dedupe(latency))]);
  return joined;
}

/** The axis must rise: of samples in the same millisecond the slowest is kept. */
function dedupe(samples: readonly Sample[]): readonly Sample[] {
  const out: Sample[] = [];
  for (const sample of samples) {
    const last = out.at(-1);
    if (last && sample.at <= last.at) out[out.length - 1] = { at: last.at, ms: Math.max(last.ms, sample.ms) };
    else out.push(sample);
  }
  return out;
}
