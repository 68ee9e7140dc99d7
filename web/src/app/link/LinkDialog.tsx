// A one-time link that signs in another browser as the same user: to scan, to copy, and counted down.
import { useCallback, useEffect, useRef, useState } from "react";
import { encode } from "uqr";
import type { Problem } from "../api";
import { asProblem, useSession } from "../session";
import { Icon } from "../ui/Icon";

interface Link {
  url: string;
  expiresAt: string;
}

export default function LinkDialog({ onClose }: { onClose: () => void }) {
  const { api } = useSession();
  const dialog = useRef<HTMLDialogElement>(null);
  const [link, setLink] = useState<Link | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [copied, setCopied] = useState(false);
  const left = useSecondsLeft(link?.expiresAt);

  const ask = useCallback(async () => {
    setLink(null);
    setProblem(null);
    setCopied(false);
    try {
      setLink((await api<Link>("/api/session/link", { method: "POST" })).data);
    } catch (error) {
      setProblem(asProblem(error));
    }
  }, [api]);

  useEffect(() => {
    if (dialog.current?.open === false) dialog.current.showModal();
    void ask();
  }, [ask]);

  const url = link ? new URL(link.url, location.href).href : "";
  const copy = async () => {
    if (await copyText(url)) setCopied(true);
  };
  const over = link !== null && left <= 0;

  return (
    <dialog ref={dialog} className="dialog" aria-labelledby="link-title" onClose={onClose}>
      <div className="dialog-head">
        <h2 id="link-title">Open on another device</h2>
        <button
          type="button"
          className="icon-button"
          aria-label="Close"
          onClick={() => dialog.current?.close()}
        >
          <Icon name="close" />
        </button>
      </div>
      <p>This link signs in one other browser as you. It works once, and for a minute.</p>
      {problem ? (
        <p className="inline-problem" role="alert">
          {problem.message}
        </p>
      ) : (
        <>
          <div className="qr-frame" data-over={over}>
            {link ? <QrCode text={url} /> : <div className="qr-wait" />}
          </div>
          <div className="copy-field">
            <input
              readOnly
              aria-label="Link"
              data-testid="link-url"
              value={url}
              onFocus={(event) => event.currentTarget.select()}
            />
            <button type="button" className="button" disabled={!link || over} onClick={() => void copy()}>
              <Icon name={copied ? "check" : "copy"} size={18} />
              {copied ? "Copied" : "Copy"}
            </button>
          </div>
        </>
      )}
      <div className="row">
        <p className="faint tabular" role="status">
          {over
            ? "This link has expired."
            : link
              ? `Expires in ${left} s`
              : problem
                ? ""
                : "Asking for a link…"}
        </p>
        <span className="spring" />
        {(over || problem) && (
          <button type="button" className="button primary small" onClick={() => void ask()}>
            New link
          </button>
        )}
      </div>
    </dialog>
  );
}

function useSecondsLeft(expiresAt: string | undefined): number {
  const [now, setNow] = useState(Date.now);
  useEffect(() => {
    if (expiresAt === undefined) return;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [expiresAt]);
  return expiresAt === undefined ? 0 : Math.max(0, Math.ceil((Date.parse(expiresAt) - now) / 1000));
}

function QrCode({ text }: { text: string }) {
  const { data, size } = encode(text, { ecc: "M", border: 2 });
  const path = data.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ""))).join("");
  return (
    <svg
      className="qr"
      viewBox={`0 0 ${size} ${size}`}
      role="img"
      aria-label="QR code of the link"
      shapeRendering="crispEdges"
    >
      <path d={path} />
    </svg>
  );
}

/** Copies, also over plain http where the clipboard interface is missing. */
async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.querySelector<HTMLInputElement>("[data-testid=link-url]");
    field?.select();
    return document.execCommand("copy");
  }
}
