// What the operators' views have above them: the way from one to the other, and back to the page.

import type { ReactNode } from "react";
import { Icon } from "../ui/Icon";

const VIEWS = { nodes: "Nodes", logs: "Logs" } as const;

interface Props {
  /** Of the heading, for aria-labelledby. */
  id: string;
  title: string;
  view: keyof typeof VIEWS;
  /** One line of state. */
  children?: ReactNode;
}

export function OperatorHead({ id, title, view, children }: Props) {
  return (
    <div className="op-head">
      <h2 id={id}>{title}</h2>
      <p className="faint tabular" role="status">
        {children}
      </p>
      <span className="spring" />
      <nav className="op-tabs" aria-label="For operators">
        {Object.entries(VIEWS).map(([name, label]) => (
          <a key={name} href={`#${name}`} aria-current={name === view ? "page" : undefined}>
            {label}
          </a>
        ))}
      </nav>
      <a className="button small" href="#todos">
        <Icon name="close" size={16} />
        Close
      </a>
    </div>
  );
}
