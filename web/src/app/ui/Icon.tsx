// One stroke set, 20 px grid. Decorative: the control that holds an icon has the name.
const PATHS = {
  plus: "M10 4v12M4 10h12",
  check: "M4.5 10.5l3.5 3.5 7.5-8",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.7 10h7.6l.7-10M8.5 9v4.5M11.5 9v4.5",
  edit: "M4 16l.8-3.4L13.4 4a1.4 1.4 0 0 1 2 0l.6.6a1.4 1.4 0 0 1 0 2L7.4 15.2 4 16z",
  send: "M4 10l12-6-4.5 12-2.3-4.7L4 10z",
  retry: "M15.5 8A6 6 0 1 0 16 11M15.5 4v4h-4",
  close: "M5 5l10 10M15 5L5 15",
  sun: "M10 3v1.5M10 15.5V17M3 10h1.5M15.5 10H17M5 5l1 1M14 14l1 1M15 5l-1 1M6 14l-1 1M10 7a3 3 0 1 1 0 6 3 3 0 0 1 0-6z",
  moon: "M16 11.5A6.5 6.5 0 0 1 8.5 4a6.5 6.5 0 1 0 7.5 7.5z",
  auto: "M10 3.5a6.5 6.5 0 1 1 0 13 6.5 6.5 0 0 1 0-13zM10 3.5v13M10 7l4.5-1M10 10h6M10 13l4.5 1",
  devices: "M3 4.5h11v7H3zM3 14.5h7M12.5 9H17v7.5h-4.5z",
  list: "M7.5 5.5H17M7.5 10H17M7.5 14.5H17M3.5 5.5h.5M3.5 10h.5M3.5 14.5h.5",
  chat: "M4 4.5h12v8.5H9.5L6 16v-3H4z",
  pulse: "M2.5 10h3.5l2-5 4 10 2-5h3.5",
  unplug: "M4 16l3-3M13 7l3-3M6 9l5 5-1.5 1.5a3.5 3.5 0 0 1-5-5zM9.5 5.5L11 4a3.5 3.5 0 0 1 5 5l-1.5 1.5z",
  shuffle: "M3.5 6h3l7 8h3M3.5 14h3l1.7-2M11.8 8l1.7-2h3M14.5 4l2 2-2 2M14.5 12l2 2-2 2",
  copy: "M7.5 7.5h8.5V16H7.5zM12.5 7.5V4H4v8.5h3.5",
  search: "M9 4a5 5 0 1 1 0 10A5 5 0 0 1 9 4zM13 13l3.5 3.5",
  calendar: "M4 5.5h12V16H4zM4 8.5h12M7 4v3M13 4v3",
  note: "M4.5 6h11M4.5 10h11M4.5 14h6.5",
  down: "M10 4v11M5.5 10.5L10 15l4.5-4.5",
  up: "M10 16V5M5.5 9.500L10 5l4.500 4.500",
  back: "M16 10H4.500M9 5.500L4.500 10 9 14.500",
  play: "M6.500 4.500l9 5.500-9 5.500z",
  pause: "M7 5v10M13 5v10",
  terminal: "M3 4.500h14v11H3zM5.500 8l2 2-2 2M9.500 12h4",
  cloud: "M6 15.500a3 3 0 0 1-.4-6 4.500 4.500 0 0 1 8.700-.9 3.500 3.500 0 0 1 .2 6.900z",
  keyboard: "M2.5 5.5h15v9h-15zM5.5 8.5h0M8.5 8.5h0M11.5 8.5h0M14.5 8.5h0M6.5 11.5h7",
  upload: "M10 13V4M6.5 7.5L10 4l3.5 3.5M4 13v3h12v-3",
  download: "M10 4v9M6.5 9.5L10 13l3.5-3.5M4 13v3h12v-3",
  warn: "M10 4l7 12H3zM10 8.5v3.5M10 14v.2",
  more: "M5 10h.01M10 10h.01M15 10h.01",
  people:
    "M7.5 4.5a2.5 2.5 0 1 1 0 5 2.5 2.5 0 0 1 0-5zM3 16c0-2.8 2-4.5 4.5-4.5S12 13.200 12 16M13 5a2.300 2.300 0 0 1 0 4.500M14 11.700c2 .4 3 2 3 4.300",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 20 }: { name: IconName; size?: number }) {
  return (
    <svg
      className="icon"
      data-name={name}
      width={size}
      height={size}
      viewBox="0 0 20 20"
      aria-hidden="true"
      focusable="false"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Mark({ size = 28 }: { size?: number }) {
  return (
    <svg className="mark" width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="8" />
      <path d="M5 13.5c3.7 0 3.7 3 7.300 3s3.700-3 7.400-3 3.600 3 7.300 3" />
      <path className="mark-low" d="M5 20.500c3.700 0 3.700 3 7.300 3s3.700-3 7.400-3 3.600 3 7.300 3" />
    </svg>
  );
}
