// The page: four panels, one at a time, each under an address of its own (#try, #file, ...).
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { get, message, post, Refused, type State, useKey } from "./api";
import { LabelFile } from "./file";
import { NewStudy } from "./new";
import { Fault } from "./parts";
import { Studies } from "./studies";
import "./style.css";
import { Try } from "./try";

const PANELS = [
  { name: "try", title: "Try" },
  { name: "file", title: "File" },
  { name: "studies", title: "Studies" },
  { name: "new", title: "New study" },
];

// The panel, and what is chosen in it: #studies/NAME.
function placeInAddress(): { panel: string; chosen: string } {
  const [panel = "", chosen = ""] = location.hash.slice(1).split("/");
  const known = PANELS.some((p) => p.name === panel);
  return { panel: known ? panel : "try", chosen: known ? decodeURIComponent(chosen) : "" };
}

function App() {
  const [{ panel, chosen }, setPlace] = useState(placeInAddress());
  const [state, setState] = useState<State | null>(null);
  const [fault, setFault] = useState("");
  const [wantsKey, setWantsKey] = useState(false);

  async function look() {
    try {
      setState(await get<State>("/desk/state"));
      setFault("");
      setWantsKey(false);
    } catch (error) {
      setWantsKey(error instanceof Refused && error.status === 401);
      setFault(message(error));
    }
  }

  useEffect(() => {
    const turn = () => setPlace(placeInAddress());
    addEventListener("hashchange", turn);
    void look();
    return () => removeEventListener("hashchange", turn);
  }, []);

  return (
    <>
      <header class="top">
        <h1>tunelab</h1>
        <nav>
          {PANELS.map((p) => (
            <a key={p.name} href={`#${p.name}`} aria-current={p.name === panel ? "page" : undefined}>
              {p.title}
            </a>
          ))}
        </nav>
      </header>
      <main>
        {!wantsKey && <Fault text={fault} />}
        {wantsKey && <Enter fault={fault} entered={look} />}
        {state && panel === "try" && <Try models={state.models} />}
        {state && panel !== "try" && !state.opened && <Enter fault="" entered={look} />}
        {state?.opened && panel === "file" && <LabelFile models={state.models} />}
        {state?.opened && panel === "studies" && <Studies chosen={chosen} loaded={() => void look()} />}
        {state?.opened && panel === "new" && <NewStudy />}
      </main>
      <footer class="soft">
        <a href="openapi.json">openapi.json</a> describes all that this server answers.
      </footer>
    </>
  );
}

// Takes the token that the server has printed, or a key.
function Enter({ fault, entered }: { fault: string; entered: () => void }) {
  const [given, setGiven] = useState("");
  const [said, setSaid] = useState(fault);
  async function enter(event: Event) {
    event.preventDefault();
    try {
      await post("/desk/session", { token: given });
    } catch (error) {
      useKey(given); // it may be a key, which opens what clients may do
      setSaid(message(error));
    }
    entered();
  }
  return (
    <form class="enter" onSubmit={enter}>
      <p>
        This part is for the browser that was opened with the link that the server has printed
        (it ends in <code>?token=...</code>). Open that link, or paste it here.
      </p>
      <label for="token" class="title">
        Link or token
      </label>
      <div class="row">
        <input
          id="token"
          type="password"
          autocomplete="off"
          required
          value={given}
          onInput={(e) => setGiven(e.currentTarget.value)}
        />
        <button>Open</button>
      </div>
      <Fault text={said} />
    </form>
  );
}

render(<App />, document.getElementById("app")!);
