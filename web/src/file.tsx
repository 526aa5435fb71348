// A file of texts: dropped, labelled as it goes, saved.
import { useRef, useState } from "preact/hooks";
import { ask, linesOf, message, type Model, query, root } from "./api";
import { Drop, Fault, Field, percent } from "./parts";

interface Row {
  text: string;
  label: string;
  probability: number;
}

type Line =
  | { rows: number; text_column: string; notes: string[] }
  | { done: number; rows: Row[] }
  | { file: string }
  | { error: string };

interface Progress {
  name: string;
  rows: number;
  column: string;
  notes: string[];
  done: number;
  counts: ReadonlyMap<string, number>;
  last: Row[];
  file: string;
}

const SHOWN = 12;

export function LabelFile({ models }: { models: Model[] }) {
  const [model, setModel] = useState("");
  const [column, setColumn] = useState("");
  const [progress, setProgress] = useState<Progress | null>(null);
  const [busy, setBusy] = useState(false);
  const [fault, setFault] = useState("");
  const stop = useRef<AbortController | null>(null);
  const name = models.some((m) => m.name === model) ? model : (models[0]?.name ?? "");

  async function label(file: File) {
    setBusy(true);
    setFault("");
    setProgress(null);
    stop.current = new AbortController();
    const where = query({ model: name, name: file.name, text_column: column.trim() });
    try {
      const signal = stop.current.signal;
      const response = await ask(`/desk/label?${where}`, { method: "POST", body: file, signal });
      for await (const line of linesOf<Line>(response)) {
        if ("error" in line) throw new Error(line.error);
        setProgress((now) => after(now, line, file.name));
      }
    } catch (error) {
      const ended = error instanceof DOMException && error.name === "AbortError";
      setFault(ended ? "Stopped. Nothing is kept." : message(error));
    }
    setBusy(false);
  }

  if (!models.length) {
    return <p class="empty">No model is loaded: there is nothing to label with.</p>;
  }
  return (
    <>
      <div class="fields">
        <Field label="Model">
          <select value={name} onChange={(e) => setModel(e.currentTarget.value)}>
            {models.map((m) => (
              <option key={m.name} value={m.name}>
                {m.name}
              </option>
            ))}
          </select>
        </Field>
        <Field label="Column of the texts">
          <input
            value={column}
            placeholder="guessed"
            onInput={(e) => setColumn(e.currentTarget.value)}
          />
        </Field>
      </div>
      <Drop
        label={busy ? "Labelling ..." : "Drop a file of texts here, or choose one"}
        hint="CSV, TSV, JSON lines, Parquet or .txt; any size. It goes to this server alone."
        busy={busy}
        onFile={label}
      />
      <Fault text={fault} />
      {progress && (
        <Labelled progress={progress} busy={busy} stop={() => stop.current?.abort()} />
      )}
    </>
  );
}

function after(now: Progress | null, line: Line, name: string): Progress | null {
  if ("text_column" in line) {
    return {
      name,
      rows: line.rows,
      column: line.text_column,
      notes: line.notes,
      done: 0,
      counts: new Map(),
      last: [],
      file: "",
    };
  }
  if (now && "done" in line) {
    const counts = new Map(now.counts);
    for (const row of line.rows) counts.set(row.label, (counts.get(row.label) ?? 0) + 1);
    return { ...now, done: line.done, counts, last: [...now.last, ...line.rows].slice(-SHOWN) };
  }
  return now && "file" in line ? { ...now, file: line.file } : now;
}

function Labelled(props: { progress: Progress; busy: boolean; stop: () => void }) {
  const { progress, busy, stop } = props;
  const counts = [...progress.counts].sort((a, b) => b[1] - a[1]);
  return (
    <section>
      <div class="row">
        <progress max={progress.rows} value={progress.done} aria-label="rows labelled" />
        <span role="status">
          {progress.done.toLocaleString("en")} of {progress.rows.toLocaleString("en")} rows
        </span>
        {busy && (
          <button type="button" class="plain" onClick={stop}>
            Stop
          </button>
        )}
        {progress.file && (
          <a class="button" href={`${root}/desk/labelled?${query({ file: progress.file })}`} download>
            Download
          </a>
        )}
      </div>
      <p class="soft">
        {progress.name}, texts from column <code>{progress.column}</code>
      </p>
      {progress.notes.map((note) => (
        <p key={note} class="soft">
          {note}
        </p>
      ))}
      <p class="chips">
        {counts.slice(0, 20).map(([label, n]) => (
          <span key={label} class="chip">
            {label} <b>{n.toLocaleString("en")}</b>
          </span>
        ))}
      </p>
      <table class="rows">
        <thead>
          <tr>
            <th>text (the last {progress.last.length})</th>
            <th>label</th>
            <th class="number">probability</th>
          </tr>
        </thead>
        <tbody>
          {progress.last.map((row, i) => (
            <tr key={progress.done - progress.last.length + i}>
              <td class="cut">{row.text}</td>
              <td>{row.label}</td>
              <td class="number">{percent(row.probability)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
