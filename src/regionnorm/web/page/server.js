// What the page asks the server for. All addresses begin with the visitor's name, which this tab
// keeps until it is closed: a reload finds the same photos again.

export class Refused extends Error {}

export class Server {
  constructor(base) {
    this.base = base;
    this.visitor = '';
    this.comeBack = () => this.come(); // of a page that was opened while the server was away
  }

  // Find the visitor of before a reload, or become a new one. Returns what is kept of them.
  async come(known) {
    if (known) {
      this.visitor = known;
      try {
        return await this.ask('GET', '');
      } catch (error) {
        this.visitor = '';
        if (!(error instanceof Refused)) throw error;
      }
    }
    const told = await this.ask('POST', 'visitors');
    this.visitor = told.visitor;
    return { pictures: [], jobs: [] };
  }

  address(path) {
    const parts = [this.visitor, path].filter(Boolean).join('/');
    return new URL(parts, this.base).href;
  }

  async ask(method, path, body, signal) {
    return (await this.fetch(method, path, body, signal)).json();
  }

  async fetch(method, path, body, signal) {
    if (!this.visitor && path !== 'visitors') await this.comeBack();
    let answer;
    try {
      answer = await fetch(this.address(path), { method, body, signal });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Error('The server cannot be reached just now. Check the connection and try again.');
    }
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw new Refused(sentence(told.error ?? `the server answered ${answer.status}`));
  }

  async bitmap(path, options) {
    const blob = await (await this.fetch('GET', path)).blob();
    return createImageBitmap(blob, options);
  }

  // Call `told` with each line of a job until the last, which is returned. A broken connection is
  // taken up again; the server waits a while for it.
  async follow(method, path, body, told, signal) {
    let job = null;
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = job
          ? await this.fetch('GET', `jobs/${job}`, undefined, signal)
          : await this.fetch(method, path, body, signal);
        for await (const line of lines(answer)) {
          job = line.job ?? job;
          if (line.error) line.error = sentence(line.error);
          attempt = 0;
          if (!['waiting', 'running'].includes(line.state)) return line;
          told(line);
        }
        if (!job) throw new Refused('The server stopped in the middle; try again.');
      } catch (error) {
        if (error instanceof Refused || error.name === 'AbortError' || !job || attempt > 4) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 400 * 2 ** attempt));
    }
  }
}

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n');
    rest = parts.pop();
    for (const part of parts) if (part) yield JSON.parse(part);
  }
}

// The library's messages begin small, since they follow a file's name on the command line.
export function sentence(text) {
  const named = /^.{0,80}?\.\w{2,5} (is|has) /.test(text);
  const first = /^[a-z]+[ ,]/.test(text) && !named ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
