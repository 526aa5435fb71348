// Studies: all below the server's folders, one of them with its trials as they run and its report.
import { useEffect, useRef, useState } from "preact/hooks";
import { get, message, post, query, root } from "./api";
import { Command, Fault, percent, useRepeated } from "./parts";

interface StudyLine {
  key: string;
  state: "starting" | "running" | "done" | "paused" | "damaged";
  done: number;
  failed: number;
  missing: number;
  headline: string;
  data: string;
  changed: number;
  fault: string;
}

interface Trial {
  trial_id: string;
  name: string;
  status: string;
  error: string | null;
  score: number | null;
  seconds: number | null;
}

interface Details {
  line: StudyLine;
  metric: string;
  is_share: boolean;
  trials: Trial[];
  has_report: boolean;
  has_model: boolean;
  command: string;
}

// What a study says while it runs (core/run_log.py).
type Said = { at: number } & (
  | { event: "run" }
  | { event: "plan"; trials: { trial_id: string; name: string }[]; seconds: number }
  | { event: "start"; trial_id: string }
  | { event: "note"; text: string }
  | { event: "end" } & Trial
  | { event: "over"; stopped: boolean; error: string | null }
  | { event: "step"; trial_id?: string; stage?: string; step?: number; steps?: number; epoch?: number; loss?: number }
);

interface Live {
  names: ReadonlyMap<string, string>;
  running: ReadonlyMap<string, { said: string; share: number }>;
  ended: ReadonlyMap<string, Trial>;
  notes: string[];
  error: string;
  seconds: number;
  since: number;
}

const NOTHING: Live = {
  names: new Map(),
  running: new Map(),
  ended: new Map(),
  notes: [],
  error: "",
  seconds: 0,
  since: 0,
};

export function Studies({ chosen, loaded }: { chosen: string; loaded: () => void }) {
  const [lines, setLines] = useState<StudyLine[] | null>(null);
  const [fault, setFault] = useState("");

  async function look() {
    try {
      setLines((await get<{ studies: StudyLine[] }>("/desk/studies")).studies);
      setFault("");
    } catch (error) {
      setFault(message(error));
    }
  }
  useRepeated(4, () => void look(), []);

  if (!lines) return fault ? <Fault text={fault} /> : <p class="soft">looking ...</p>;
  const current = lines.some((l) => l.key === chosen) || chosen ? chosen : "";
  return (
    <>
      <Fault text={fault} />
      {current ? (
        <Study key={current} name={current} look={() => void look()} loaded={loaded} />
      ) : lines.length ? (
        <ul class="studies">
          {lines.map((line) => (
            <li key={line.key}>
              <Line line={line} />
            </li>
          ))}
        </ul>
      ) : (
        <p class="empty">
          No studies here yet. Begin one under <a href="#new">New study</a>, or in a terminal:{" "}
          <code>tunelab compare --data demo</code>
        </p>
      )}
    </>
  );
}

function Line({ line }: { line: StudyLine }) {
  const all = line.done + line.failed + line.missing;
  return (
    <a class="card study" href={`#studies/${encodeURIComponent(line.key)}`}>
      <header>
        <h3>{line.key}</h3>
        <State state={line.state} />
      </header>
      {line.headline && <p>{line.headline}.</p>}
      {line.fault && <p class="bad">{line.fault}</p>}
      <p class="soft">
        {all > 0 && `${line.done} of ${all} trials done`}
        {line.failed > 0 && <b class="bad">, {line.failed} failed</b>}
        {line.data && ` · ${line.data}`}
        {line.changed > 0 && ` · ${new Date(1000 * line.changed).toLocaleString()}`}
      </p>
    </a>
  );
}

function State({ state }: { state: StudyLine["state"] }) {
  return <span class={`state ${state}`}>{state}</span>;
}

function Study(props: { name: string; look: () => void; loaded: () => void }) {
  const { name, look, loaded } = props;
  const [details, setDetails] = useState<Details | null>(null);
  const [live, setLive] = useState<Live>(NOTHING);
  const [fault, setFault] = useState("");
  const [unread, setUnread] = useState("");
  const [said, setSaid] = useState("");
  const [busy, setBusy] = useState(false);
  const where = query({ study: name });
  const state = details?.line.state;

  async function read() {
    try {
      setDetails(await get<Details>(`/desk/study?${where}`));
      setUnread("");
    } catch (error) {
      setUnread(message(error));
    }
  }

  useRepeated(3, () => void read(), [name]);
  useEvents(`${root}/desk/events?${where}`, (event) => {
    setLive((now) => afterEvent(now, event));
    if (event.event === "run" || event.event === "over") void read();
  });
  // A report is shown anew where a run has ended.
  const shown = useRef("");
  if (details?.has_report && state !== "running") shown.current = String(details.line.changed);

  async function change(path: string, then: string) {
    setBusy(true);
    setFault("");
    try {
      await post(path, { study: name });
      setSaid(then);
      await read();
      look();
      if (path === "/desk/load") loaded();
    } catch (error) {
      setFault(message(error));
    }
    setBusy(false);
  }

  if (!details) return unread ? <Fault text={unread} /> : <p class="soft">reading ...</p>;
  const { line } = details;
  const runs = state === "running" || state === "starting";
  return (
    <article>
      <p>
        <a href="#studies">All studies</a>
      </p>
      <header class="head">
        <h2>{name}</h2>
        <State state={line.state} />
      </header>
      {line.headline && <p class="headline">{line.headline}.</p>}
      <Fault text={fault || unread || line.fault || (runs ? "" : live.error)} />
      <div class="row">
        {state === "running" && (
          <button disabled={busy} onClick={() => change("/desk/pause", "Pausing: the trials that run now are begun anew later.")}>
            Pause
          </button>
        )}
        {state === "paused" && (
          <button disabled={busy} onClick={() => change("/desk/go-on", "")}>
            Continue
          </button>
        )}
        {details.has_model && (
          <button class="plain" disabled={busy} onClick={() => change("/desk/load", "Loaded: it is under Try now.")}>
            Load its best model
          </button>
        )}
        <span class="soft" role="status">
          {said.startsWith("Pausing") && !runs ? "" : said}
        </span>
      </div>
      <Trials details={details} live={live} runs={runs} />
      {details.command && <Command title={runs ? "The same from a terminal" : "Go on from a terminal"} text={details.command} />}
      {details.has_report && (
        <section>
          <header class="head">
            <h3>Report</h3>
            <a href={`${root}/desk/report?${where}`} target="_blank" rel="noreferrer">
              in a tab of its own
            </a>
          </header>
          <iframe
            key={shown.current}
            title={`report of ${name}`}
            sandbox="allow-scripts allow-downloads allow-popups"
            src={`${root}/desk/report?${where}`}
          />
        </section>
      )}
    </article>
  );
}

function useEvents(address: string, hear: (said: Said) => void) {
  useEffect(() => {
    const source = new EventSource(address);
    source.onmessage = (event) => {
      try {
        hear(JSON.parse(event.data as string) as Said);
      } catch {
        // A line that was damaged on the disk says nothing.
      }
    };
    return () => source.close();
  }, [address]);
}

function afterEvent(now: Live, said: Said): Live {
  switch (said.event) {
    case "run":
      return { ...NOTHING, since: said.at };
    case "plan": {
      // Each plan names all that is still to run: what an earlier one had may be another by now.
      const names = new Map([...now.names].filter(([id]) => now.running.has(id)));
      for (const t of said.trials) names.set(t.trial_id, t.name);
      return { ...now, names, seconds: said.seconds + (said.at - now.since) };
    }
    case "note":
      return { ...now, notes: [...now.notes, said.text].slice(-20) };
    case "end": {
      const running = new Map(now.running);
      running.delete(said.trial_id);
      return { ...now, running, ended: new Map(now.ended).set(said.trial_id, said) };
    }
    case "over":
      return { ...now, running: new Map(), error: said.error ?? "" };
    case "start":
      return running(now, said.trial_id, "starting", 0);
    case "step": {
      const before = now.running.get(said.trial_id ?? "");
      if (!said.trial_id || !before) return now;
      if (said.stage) return running(now, said.trial_id, said.stage, before.share);
      const { epoch = 0, loss, step = 0, steps = 1 } = said;
      const parts = [`epoch ${epoch.toFixed(1)}`];
      if (loss !== undefined) parts.push(`loss ${loss.toFixed(3)}`);
      return running(now, said.trial_id, parts.join(", "), step / steps);
    }
  }
}

function running(now: Live, id: string, said: string, share: number): Live {
  return { ...now, running: new Map(now.running).set(id, { said, share }) };
}

function Trials({ details, live, runs }: { details: Details; live: Live; runs: boolean }) {
  const ended = new Map(details.trials.map((t) => [t.trial_id, t]));
  // What has ended a moment ago, and tries of settings, are said by events alone.
  for (const [id, t] of live.ended) if (!ended.has(id)) ended.set(id, t);
  const failed = [...ended.values()].filter((t) => t.status === "failed");
  const waiting = runs
    ? [...live.names].filter(([id]) => !ended.has(id) && !live.running.has(id)).length
    : 0;
  const { done, missing } = details.line;
  return (
    <section>
      {runs && (
        <div class="row">
          <progress max={Math.max(1, ended.size + waiting + live.running.size)} value={ended.size} aria-label="trials" />
          <span>
            {ended.size} ended, {live.running.size} running, {waiting} waiting
            {live.seconds > 0 && `; about ${clock(live.since + live.seconds - Date.now() / 1000)} left`}
          </span>
        </div>
      )}
      {failed.map((t) => (
        <Fault key={t.trial_id} text={`${t.name} failed: ${t.error ?? ""}`} />
      ))}
      {live.notes.map((note) => (
        <p key={note} class="soft">
          {note}
        </p>
      ))}
      <details open={runs || failed.length > 0}>
        <summary>{runs ? "Trials" : `${done} of ${done + missing + failed.length} trials done`}</summary>
        <table class="rows">
          <thead>
            <tr>
              <th>trial</th>
              <th>state</th>
              <th class="number">{details.metric && `${details.metric}, validation`}</th>
              <th class="number">trained</th>
            </tr>
          </thead>
          <tbody>
            {runs &&
              [...live.running].map(([id, now]) => (
                <tr key={id}>
                  <td>{live.names.get(id) ?? id}</td>
                  <td colSpan={3}>
                    <progress max={1} value={now.share} aria-label="steps" /> {now.said}
                  </td>
                </tr>
              ))}
            {[...ended.values()].reverse().map((t) => (
              <tr key={t.trial_id}>
                <td>{t.name}</td>
                <td class={t.status === "failed" ? "bad" : ""}>{t.status}</td>
                <td class="number">
                  {t.score === null ? "–" : details.is_share ? percent(t.score) : t.score.toFixed(3)}
                </td>
                <td class="number">{t.seconds === null ? "–" : clock(t.seconds)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </details>
    </section>
  );
}

function clock(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 90) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return `${(s / 3600).toFixed(1)} h`;
}
