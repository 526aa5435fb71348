// One text against several models: probabilities, the words that moved them, the same by curl.
import { useState } from "preact/hooks";
import { keyInUse, message, type Model, post, root, type Tried, type WordMoved } from "./api";
import { Bar, Command, Fault, percent, quoted } from "./parts";

type Answer = { model: string; tried?: Tried; fault?: string };

const MOST_WORDS = 6;

export function Try({ models }: { models: Model[] }) {
  const [text, setText] = useState("");
  const [left, setLeft] = useState<ReadonlySet<string>>(new Set());
  const [answers, setAnswers] = useState<Answer[]>([]);
  const [asked, setAsked] = useState("");
  const [busy, setBusy] = useState(false);
  const chosen = models.filter((m) => !left.has(m.name)).map((m) => m.name);

  async function submit(event: Event) {
    event.preventDefault();
    setBusy(true);
    setAsked(text);
    setAnswers(chosen.map((model) => ({ model })));
    await Promise.all(
      chosen.map(async (model) => {
        let answer: Answer;
        try {
          answer = { model, tried: await post<Tried>("/desk/try", { model, text }) };
        } catch (error) {
          answer = { model, fault: message(error) };
        }
        setAnswers((all) => all.map((a) => (a.model === model ? answer : a)));
      }),
    );
    setBusy(false);
  }

  const toggle = (name: string) => {
    const next = new Set(left);
    if (!next.delete(name)) next.add(name);
    setLeft(next);
  };

  if (!models.length) {
    return (
      <p class="empty">
        No model is loaded. Load the best of a study under <a href="#studies">Studies</a>, or start
        with one: <code>tunelab serve FOLDER</code>
      </p>
    );
  }
  return (
    <>
      <form onSubmit={submit}>
        <label for="text" class="title">
          Text
        </label>
        <textarea
          id="text"
          required
          value={text}
          placeholder="A quiet, wonderful film."
          onInput={(e) => setText(e.currentTarget.value)}
          onKeyDown={(e) => {
            if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) e.currentTarget.form!.requestSubmit();
          }}
        />
        {models.length > 1 && (
          <fieldset class="chips">
            <legend>Models</legend>
            {models.map((m) => (
              <label key={m.name} class="chip">
                <input
                  type="checkbox"
                  checked={!left.has(m.name)}
                  onChange={() => toggle(m.name)}
                />
                {m.name}
              </label>
            ))}
          </fieldset>
        )}
        <div class="row">
          <button disabled={busy || !chosen.length}>Classify</button>
          <span class="soft">Ctrl + Enter does so too</span>
        </div>
      </form>
      <div class="cards" aria-live="polite">
        {answers.map((answer) => (
          <Card key={answer.model} answer={answer} text={asked} />
        ))}
      </div>
      {asked && answers[0] && <Command title="The same from a terminal" text={curl(answers[0].model, asked)} />}
    </>
  );
}

function curl(model: string, text: string): string {
  const key = keyInUse() ? " -H 'Authorization: Bearer KEY'" : "";
  const body = quoted(JSON.stringify({ model, input: text }));
  return `curl ${quoted(`${root}/classify`)}${key} -H 'Content-Type: application/json' -d ${body}`;
}

function Card({ answer, text }: { answer: Answer; text: string }) {
  const { model, tried, fault } = answer;
  if (!tried) {
    return (
      <article class="card">
        <h3>{model}</h3>
        {fault ? <Fault text={fault} /> : <p class="soft">asking ...</p>}
      </article>
    );
  }
  const ranked = tried.labels
    .map((label, i) => ({ label, p: tried.probabilities[i]! }))
    .sort((a, b) => b.p - a.p);
  const about = [
    tried.calibrated ? "calibrated" : "not calibrated",
    `${Math.max(1, Math.round(1000 * tried.seconds))} ms`,
  ];
  return (
    <article class="card">
      <header>
        <h3>{model}</h3>
        <span class="soft" title={tried.why_not}>
          {about.join(" · ")}
        </span>
      </header>
      <table class="scores">
        <thead class="unseen">
          <tr>
            <th>label</th>
            <th>probability</th>
            <th />
          </tr>
        </thead>
        <tbody>
          {ranked.slice(0, 12).map(({ label, p }) => (
            <tr key={label}>
              <th scope="row">{label}</th>
              <td class="number">{percent(p)}</td>
              <td class="share">
                <Bar share={p} name={label} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {ranked.length > 12 && <p class="soft">and {ranked.length - 12} more labels</p>}
      {tried.cut && <p class="soft">Only its first {tried.tokens} tokens were read.</p>}
      {tried.words.length > 0 && <Words tried={tried} text={text} label={ranked[0]!.label} />}
    </article>
  );
}

// The text with each word as strongly coloured as leaving it out moves the label's log odds.
function Words({ tried, text, label }: { tried: Tried; text: string; label: string }) {
  const characters = [...text]; // the server counts characters, not halves of them
  const most = Math.max(...tried.words.map((w) => Math.abs(w.moved)), 1e-6);
  const whole = Math.max(...tried.probabilities);
  const parts = [];
  let at = 0;
  const part = (from: number, to?: number) => characters.slice(from, to).join("");
  for (const w of tried.words) {
    parts.push(part(at, w.start));
    const share = Math.abs(w.moved) / most;
    parts.push(
      <span
        key={w.start}
        class={w.moved >= 0 ? "word for" : "word against"}
        style={{ "--share": share < 0.08 ? 0 : share }}
        title={`without it: ${percent(w.without)}`}
      >
        {part(w.start, w.stop)}
      </span>,
    );
    at = w.stop;
  }
  parts.push(part(at));
  const strongest = [...tried.words].sort((a, b) => Math.abs(b.moved) - Math.abs(a.moved));
  return (
    <section class="words">
      <h4>
        What moved <q>{label}</q>
      </h4>
      <p class="text">{parts}</p>
      <table>
        <thead>
          <tr>
            <th>left out</th>
            <th class="number">then</th>
            <th class="number">change</th>
          </tr>
        </thead>
        <tbody>
          {strongest.slice(0, MOST_WORDS).map((w) => (
            <tr key={w.start}>
              <td>{part(w.start, w.stop)}</td>
              <td class="number">{percent(w.without)}</td>
              <td class={`number ${sideOf(w)}`}>{points(w.without - whole)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function sideOf(w: WordMoved): string {
  return w.moved >= 0 ? "for" : "against";
}

function points(change: number): string {
  const value = (100 * Math.abs(change)).toFixed(1);
  return `${change > 0 ? "+" : "−"}${value}`;
}
