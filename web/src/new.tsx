// New study: a file, what is wrong with it, what would run and what that could find, the start.
import { useEffect, useState } from "preact/hooks";
import { ask, get, message, post, query } from "./api";
import { Command, Drop, Fault, Field } from "./parts";

interface Method {
  name: string;
  about: string;
  usual: boolean;
}

interface Offered {
  files: string[];
  demos: string[];
  methods: Method[];
  bases: string[];
  metrics: { name: string; label: string }[];
  seeds: number;
}

interface Finding {
  check: string;
  where: string;
  level: "fault" | "warning" | "note";
  says: string;
  advice: string;
  examples: { note: string; rows: { part: string; id: string; label: string; text: string }[] }[];
}

interface Seen {
  columns: string[];
  fault: string;
  text_column: string;
  label_column: string;
  rows: Record<string, number> | null;
  labels: Record<string, number> | null;
  notes: string[];
  findings: Finding[];
  clear: string;
}

interface ToCome {
  trials: number;
  takes: string;
  finds: number;
  lines: { head: string; lines: string[] }[];
  command: string;
}

export function NewStudy() {
  const [offered, setOffered] = useState<Offered | null>(null);
  const [data, setData] = useState("");
  const [columns, setColumns] = useState({ text_column: "", label_column: "" });
  const [seen, setSeen] = useState<Seen | null>(null);
  const [busy, setBusy] = useState("");
  const [fault, setFault] = useState("");

  async function during<T>(what: string, act: () => Promise<T>): Promise<T | undefined> {
    setBusy(what);
    setFault("");
    try {
      return await act();
    } catch (error) {
      setFault(message(error));
      return undefined;
    } finally {
      setBusy("");
    }
  }

  useEffect(() => {
    void during("", async () => setOffered(await get<Offered>("/desk/new")));
  }, []);

  async function look(name: string, taken: typeof columns) {
    setData(name);
    setColumns(taken);
    setSeen(null);
    await during("Looking at the data ...", async () =>
      setSeen(await post<Seen>("/desk/look", { data: name, ...taken })),
    );
  }

  async function drop(file: File) {
    const name = await during("Sending the file ...", async () => {
      const sent = await ask(`/desk/upload?${query({ name: file.name })}`, { method: "POST", body: file });
      return ((await sent.json()) as { data: string }).data;
    });
    if (!name) return;
    setOffered((now) => now && { ...now, files: [...new Set([...now.files, name])] });
    await look(name, { text_column: "", label_column: "" });
  }

  if (!offered) return <Fault text={fault} />;
  const known = [...offered.files, ...offered.demos];
  return (
    <>
      <h2>1. Data</h2>
      <Drop
        label="Drop a file of labelled texts here, or choose one"
        hint="A column of texts and one of labels: CSV, TSV, JSON lines, Parquet. It stays on this server."
        busy={busy !== ""}
        onFile={(file) => void drop(file)}
      />
      <p class="chips">
        <span class="soft">or take</span>
        {known.map((name) => (
          <button
            key={name}
            type="button"
            class={name === data ? "plain chosen" : "plain"}
            disabled={busy !== ""}
            onClick={() => void look(name, { text_column: "", label_column: "" })}
          >
            {name}
          </button>
        ))}
      </p>
      {busy && <p role="status">{busy}</p>}
      <Fault text={fault} />
      {seen && <Data seen={seen} columns={columns} choose={(taken) => void look(data, taken)} />}
      {seen && !seen.fault && <Plan key={data} data={data} columns={columns} offered={offered} />}
    </>
  );
}

type Columns = { text_column: string; label_column: string };

function Data(props: { seen: Seen; columns: Columns; choose: (taken: Columns) => void }) {
  const { seen, columns, choose } = props;
  const labels = Object.entries(seen.labels ?? {}).sort((a, b) => b[1] - a[1]);
  const most = labels[0]?.[1] ?? 1;
  return (
    <section>
      {seen.columns.length > 0 && (
        <div class="fields">
          {(["text_column", "label_column"] as const).map((which) => (
            <Field key={which} label={which === "text_column" ? "Column of the texts" : "Column of the labels"}>
              <select
                value={columns[which]}
                onChange={(e) => choose({ ...columns, [which]: e.currentTarget.value })}
              >
                <option value="">{seen[which] ? `guessed: ${seen[which]}` : "guess"}</option>
                {seen.columns.map((name) => (
                  <option key={name} value={name}>
                    {name}
                  </option>
                ))}
              </select>
            </Field>
          ))}
        </div>
      )}
      <Fault text={seen.fault} />
      {seen.rows && (
        <p>
          {Object.entries(seen.rows)
            .map(([part, n]) => `${n.toLocaleString("en")} ${part}`)
            .join(", ")}{" "}
          rows, {labels.length} {labels.length === 1 ? "label" : "labels"}
        </p>
      )}
      {labels.length > 0 && (
        <table class="scores">
          <tbody>
            {labels.slice(0, 12).map(([label, n]) => (
              <tr key={label}>
                <th scope="row">{label}</th>
                <td class="number">{n.toLocaleString("en")}</td>
                <td class="share">
                  <div class="bar">
                    <div style={{ width: `${(100 * n) / most}%` }} />
                  </div>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {labels.length > 12 && <p class="soft">and {labels.length - 12} more labels</p>}
      {seen.notes.map((note) => (
        <p key={note} class="soft">
          {note}
        </p>
      ))}
      {!seen.fault && <Gate seen={seen} />}
    </section>
  );
}

function Gate({ seen }: { seen: Seen }) {
  if (!seen.findings.length) return <p class="good">{seen.clear}</p>;
  return (
    <>
      <h3>What the gate found</h3>
      <ul class="findings">
        {seen.findings.map((finding) => (
          <li key={`${finding.check} ${finding.where}`}>
            <details>
              <summary>
                <span class={`level ${finding.level}`}>{finding.level}</span> {finding.says}.{" "}
                {finding.advice}
              </summary>
              {finding.examples.slice(0, 3).map((example, i) => (
                <blockquote key={i}>
                  {example.note && <p class="soft">{example.note}</p>}
                  {example.rows.map((row) => (
                    <p key={row.part + row.id}>
                      <span class="soft">
                        {row.part} {row.id}
                      </span>{" "}
                      <b>{row.label}</b> {row.text}
                    </p>
                  ))}
                </blockquote>
              ))}
            </details>
          </li>
        ))}
      </ul>
    </>
  );
}

function Plan(props: { data: string; columns: Columns; offered: Offered }) {
  const { data, columns, offered } = props;
  const usual = offered.methods.filter((m) => m.usual).map((m) => m.name);
  const [methods, setMethods] = useState<readonly string[]>(usual);
  const [base, setBase] = useState(""); // "": the first of those that are offered
  const [metric, setMetric] = useState("");
  const [seeds, setSeeds] = useState(String(offered.seeds));
  const [tuning, setTuning] = useState(true);
  const [dropLeaks, setDropLeaks] = useState(false);
  const [budget, setBudget] = useState("");
  const [name, setName] = useState(data.replace(/\W*\.\w+$|[^\w.-]/g, "").replace(/^data$/, "") || "study");
  const [planned, setPlanned] = useState<{ of: string; plan: ToCome } | null>(null);
  const [busy, setBusy] = useState("");
  const [fault, setFault] = useState("");
  const asked = {
    data,
    ...columns,
    name: name.trim(),
    methods,
    model: base.trim(),
    metric,
    seeds: Number(seeds),
    tuning,
    drop_leaks: dropLeaks,
    budget: budget.trim(),
  };
  const now = JSON.stringify(asked);
  const plan = planned?.of === now ? planned.plan : null; // what was planned before is no plan of this

  async function act(what: string, path: string, then: (answer: unknown) => void) {
    setBusy(what);
    setFault("");
    try {
      then(await post(path, asked));
    } catch (error) {
      setFault(message(error));
    }
    setBusy("");
  }
  const toggle = (method: string) =>
    setMethods((all) => (all.includes(method) ? all.filter((m) => m !== method) : [...all, method]));

  return (
    <form
      onSubmit={(e) => {
        e.preventDefault();
        void act("Planning ...", "/desk/plan", (plan) => setPlanned({ of: now, plan: plan as ToCome }));
      }}
    >
      <h2>2. Methods</h2>
      <MethodChoice methods={offered.methods} chosen={methods} toggle={toggle} />
      <div class="fields">
        <Field label={`Base model (${offered.bases[0]})`}>
          <input
            name="base"
            list="bases"
            value={base}
            placeholder={`${offered.bases[0]}, or a hub id: owner/name`}
            onInput={(e) => setBase(e.currentTarget.value)}
          />
          <datalist id="bases">
            {offered.bases.map((name) => (
              <option key={name} value={name} />
            ))}
          </datalist>
        </Field>
        <Field label="Judged by">
          <select name="metric" value={metric} onChange={(e) => setMetric(e.currentTarget.value)}>
            {offered.metrics.map((m, i) => (
              <option key={m.name} value={i ? m.name : ""}>
                {m.label}
              </option>
            ))}
          </select>
        </Field>
      </div>
      <h2>3. How much</h2>
      <div class="fields">
        <Field label="Seeds of each method">
          <input
            type="number"
            min="1"
            max="1000"
            required
            value={seeds}
            onInput={(e) => setSeeds(e.currentTarget.value)}
          />
        </Field>
        <Field label="Budget of time (none)">
          <input
            value={budget}
            placeholder="20m, 1h30m"
            onInput={(e) => setBudget(e.currentTarget.value)}
          />
        </Field>
        <Field label="Name of the study">
          <input
            required
            pattern="[\w][\w.\-]*"
            value={name}
            onInput={(e) => setName(e.currentTarget.value)}
          />
        </Field>
      </div>
      <label class="check">
        <input type="checkbox" checked={tuning} onChange={() => setTuning(!tuning)} /> Tune each
        method's learning rate on validation first
      </label>
      <label class="check">
        <input type="checkbox" checked={dropLeaks} onChange={() => setDropLeaks(!dropLeaks)} /> Leave
        out training rows that stand in validation or test too
      </label>
      <div class="row">
        <button disabled={busy !== "" || !methods.length} class={plan ? "plain" : ""}>
          Plan
        </button>
        <button
          type="button"
          disabled={busy !== "" || !plan}
          onClick={() =>
            void act("Starting ...", "/desk/begin", (begun) => {
              location.hash = `studies/${encodeURIComponent((begun as { study: string }).study)}`;
            })
          }
        >
          Start
        </button>
        <span role="status">{busy || (plan ? "" : "Plan it to see how long it takes.")}</span>
      </div>
      <Fault text={fault} />
      {plan && <Planned plan={plan} />}
    </form>
  );
}

function MethodChoice(props: {
  methods: Method[];
  chosen: readonly string[];
  toggle: (name: string) => void;
}) {
  const { methods, chosen, toggle } = props;
  const choice = (m: Method) => (
    <label key={m.name} class="check" title={m.about}>
      <input type="checkbox" checked={chosen.includes(m.name)} onChange={() => toggle(m.name)} />{" "}
      <b>{m.name}</b> <span class="soft">{m.about}</span>
    </label>
  );
  const others = methods.filter((m) => !m.usual);
  return (
    <fieldset>
      <legend class="unseen">Methods</legend>
      {methods.filter((m) => m.usual).map(choice)}
      <details>
        <summary>{others.length} more methods</summary>
        <div class="choices">{others.map(choice)}</div>
      </details>
    </fieldset>
  );
}

function Planned({ plan }: { plan: ToCome }) {
  return (
    <section>
      <div class="tiles">
        <Tile value={String(plan.trials)} name="trainings at most" />
        <Tile value={plan.takes} name="on this machine" />
        <Tile value={`${plan.finds.toFixed(1)} points`} name="smallest difference that it finds, 4 times of 5" />
      </div>
      <details>
        <summary>All that is said before it runs</summary>
        <dl class="plan">
        {plan.lines.map(({ head, lines }, i) => (
          <div key={i}>
            <dt>{head}</dt>
            <dd>
              {lines.map((line) => (
                <p key={line}>{line}</p>
              ))}
            </dd>
          </div>
        ))}
        </dl>
      </details>
      <Command title="The same from a terminal" text={plan.command} />
    </section>
  );
}

function Tile({ value, name }: { value: string; name: string }) {
  return (
    <div class="tile">
      <b>{value}</b>
      <span class="soft">{name}</span>
    </div>
  );
}
