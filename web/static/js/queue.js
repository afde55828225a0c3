// Steps wait here until the service has answered each, in order; a lost answer is asked for again under the same key.

const PAUSES = [300, 1000, 2000, 4000];
const LONGEST_WAIT = 10_000;

/** A key that no other step has; made where `crypto.randomUUID` is missing too (plain HTTP). */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class SignedOut extends Error {}

export class Queue {
  /**
   * `kept` has the `steps` of before, and is told by `add` and `remove` of one step and of all that then wait.
   * `send(step, signal)` resolves once the step is answered; `changed(waiting, trouble)` tells how it stands.
   */
  constructor(kept, send, changed, longest = LONGEST_WAIT) {
    this.longest = longest;
    this.kept = kept;
    this.send = send;
    this.changed = changed;
    this.steps = kept.steps;
    this.isRunning = false;
  }

  /** Take a step; it is kept over a reload until it has been answered. */
  push(step) {
    const added = { key: newKey(), ...step };
    this.steps.push(added);
    this.kept.add(added, this.steps);
    this.changed(this.steps.length, null);
    this.run();
  }

  async run() {
    if (this.isRunning) return;
    this.isRunning = true;
    for (let tries = 0; this.steps.length; ) {
      try {
        await this.send(this.steps[0], AbortSignal.timeout(this.longest));
        this.kept.remove(this.steps.shift(), this.steps);
        tries = 0;
        this.changed(this.steps.length, null);
      } catch (error) {
        this.changed(this.steps.length, error);
        if (error instanceof SignedOut) break;
        await new Promise((done) => setTimeout(done, PAUSES[Math.min(tries++, PAUSES.length - 1)]));
      }
    }
    this.isRunning = false;
  }
}

export const stepsOf = (store) => store.read("steps") ?? [];

/** The steps of one tab. */
export function keptIn(store) {
  const write = (_, steps) => store.write("steps", steps);
  return { steps: stepsOf(store), add: write, remove: write };
}

/** What one tab keeps over a reload. */
export function storeOf(name) {
  return {
    read: (key) => JSON.parse(sessionStorage.getItem(`${name}.${key}`) ?? "null"),
    write: (key, value) => sessionStorage.setItem(`${name}.${key}`, JSON.stringify(value)),
  };
}
