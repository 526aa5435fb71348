// What the server is asked, and what it answers.

export interface Model {
  name: string;
  labels: string[];
  calibrated: boolean;
}

export interface State {
  opened: boolean;
  models: Model[];
}

export interface WordMoved {
  start: number;
  stop: number;
  without: number;
  moved: number;
}

export interface Tried {
  model: string;
  labels: string[];
  probabilities: number[];
  calibrated: boolean;
  why_not: string;
  tokens: number;
  cut: boolean;
  seconds: number;
  words: WordMoved[];
}

export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

// Where the server is: the page may stand behind a proxy, below a path of its own.
export const root = new URL(".", location.href).href.replace(/\/$/, "");

let key = "";

export function useKey(given: string): void {
  key = given.trim();
}

export function keyInUse(): boolean {
  return key !== "";
}

export async function ask(path: string, more: RequestInit = {}): Promise<Response> {
  const headers = new Headers(more.headers);
  if (key) headers.set("authorization", `Bearer ${key}`);
  let response: Response;
  try {
    response = await fetch(root + path, { ...more, headers });
  } catch (error) {
    if (error instanceof DOMException) throw error; // given up by us
    throw new Refused("The server does not answer. Is it still running?", 0);
  }
  if (!response.ok) throw new Refused(await fault(response), response.status);
  return response;
}

async function fault(response: Response): Promise<string> {
  const said = (await response.json().catch(() => ({}))) as { error?: string };
  return said.error ?? `Refused (${response.status}).`;
}

export async function get<T>(path: string): Promise<T> {
  return (await (await ask(path)).json()) as T;
}

export async function post<T>(path: string, body: unknown): Promise<T> {
  const headers = { "content-type": "application/json" };
  const response = await ask(path, { method: "POST", headers, body: JSON.stringify(body) });
  return (response.status === 204 ? undefined : await response.json()) as T;
}

export function query(values: Record<string, string>): string {
  const given = Object.entries(values).filter(([, value]) => value !== "");
  return new URLSearchParams(given).toString();
}

// Lines of JSON, each as soon as it is there.
export async function* linesOf<T>(response: Response): AsyncGenerator<T> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop()!;
    for (const line of lines) yield JSON.parse(line) as T;
  }
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
