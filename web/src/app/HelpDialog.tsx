import { useEffect, useRef } from "react";
import { Icon } from "./ui/Icon";

const KEYS: readonly [string, string][] = [
  ["N", "New todo"],
  ["/", "Search todos, or a log"],
  ["↑ ↓ or J K", "Move between todos"],
  ["Space", "Complete"],
  ["Enter", "Edit, and save"],
  ["Delete", "Delete"],
  ["C", "Write in the chat"],
  ["Esc", "Leave a field or a dialog"],
  ["?", "This list"],
];

export default function HelpDialog({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (dialog.current?.open === false) dialog.current.showModal();
  }, []);
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="help-title" onClose={onClose}>
      <div className="dialog-head">
        <h2 id="help-title">Keyboard</h2>
        <button
          type="button"
          className="icon-button"
          aria-label="Close"
          onClick={() => dialog.current?.close()}
        >
          <Icon name="close" />
        </button>
      </div>
      <dl className="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>{what}</dt>
            <dd>
              <kbd>{key}</kbd>
            </dd>
          </div>
        ))}
      </dl>
    </dialog>
  );
}
