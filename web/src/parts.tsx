// What several panels are made of.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}

// A text as a shell takes it.
export function quoted(text: string): string {
  return /^[\w./:=,@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

export function Bar({ share, name }: { share: number; name: string }) {
  return (
    <div class="bar" role="img" aria-label={`${name}: ${percent(share)}`}>
      <div style={{ width: `${100 * share}%` }} />
    </div>
  );
}

export function Fault({ text }: { text: string }) {
  return text ? (
    <p class="fault" role="alert">
      {text}
    </p>
  ) : null;
}

export function Command({ title, text }: { title: string; text: string }) {
  const [copied, setCopied] = useState(false);
  const line = useRef<HTMLPreElement>(null);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    } catch {
      getSelection()?.selectAllChildren(line.current!); // to be copied by hand
    }
  }
  return (
    <section class="command">
      <header>
        <h3>{title}</h3>
        <button type="button" class="plain" onClick={copy}>
          {copied ? "Copied" : "Copy"}
        </button>
      </header>
      <pre ref={line} tabIndex={0}>
        {text}
      </pre>
    </section>
  );
}

interface DropProps {
  label: string;
  hint: string;
  busy?: boolean;
  onFile: (file: File) => void;
}

// A place to drop a file on; it is a file field too, for keyboards and phones.
export function Drop({ label, hint, busy = false, onFile }: DropProps) {
  const [over, setOver] = useState(false);
  const take = (files: FileList | null | undefined) => {
    const file = files?.[0];
    if (file && !busy) onFile(file);
  };
  return (
    <label
      class={over ? "drop over" : "drop"}
      onDragOver={(e) => {
        e.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(e) => {
        e.preventDefault();
        setOver(false);
        take(e.dataTransfer?.files);
      }}
    >
      <input
        type="file"
        disabled={busy}
        accept=".csv,.tsv,.json,.jsonl,.parquet,.txt,.gz"
        onChange={(e) => {
          take(e.currentTarget.files);
          e.currentTarget.value = ""; // the same file may be given again
        }}
      />
      <strong>{label}</strong>
      <span class="soft">{hint}</span>
    </label>
  );
}

export function Field({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <label class="field">
      <span>{label}</span>
      {children}
    </label>
  );
}

// Does something now and every so many seconds, while the page is looked at.
export function useRepeated(seconds: number, act: () => void, on: unknown[]): void {
  useEffect(() => {
    act();
    const timer = setInterval(() => {
      if (!document.hidden) act();
    }, 1000 * seconds);
    return () => clearInterval(timer);
  }, on);
}
