import { hueOf, initialsOf, nameOf } from "./name";

export function Avatar({ user, size = "m" }: { user: string; size?: "s" | "m" }) {
  return (
    <span
      className={`avatar avatar-${size}`}
      data-hue={hueOf(user)}
      title={`${nameOf(user)} · ${user}`}
      aria-hidden="true"
    >
      {initialsOf(user)}
    </span>
  );
}
