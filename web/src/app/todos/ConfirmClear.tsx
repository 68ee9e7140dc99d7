import { useEffect, useRef } from "react";

/** Asked before more todos are deleted than one press could bring back. The safe answer has the focus. */
export function ConfirmClear(props: { count: number; onConfirm: () => void; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (dialog.current?.open === false) dialog.current.showModal();
  }, []);
  const count = props.count.toLocaleString();
  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="clear-title" onClose={props.onClose}>
      <div className="dialog-head">
        <h2 id="clear-title">Delete {count} done todos?</h2>
      </div>
      <p>They are too many to be brought back afterwards. An export keeps a copy.</p>
      <div className="dialog-actions">
        <button type="button" className="button" onClick={() => dialog.current?.close()}>
          Keep them
        </button>
        <button type="button" className="button danger" onClick={props.onConfirm}>
          Delete {count} todos
        </button>
      </div>
    </dialog>
  );
}
