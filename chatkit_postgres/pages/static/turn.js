// A running turn of the open conversation: this page has requested it, or follows it.

// The first event of a turn comes at once, unless the server was not reached.
const FIRST_EVENT_MS = 1000;
// A process sees a request to stop within a second, whichever process it is.
const STOP_MS = 5000;

export class Turn {
  controller = new AbortController();
  /** The ids of unfinished items. */
  open = new Set();
  hasFailed = false;
  isRefused = false;
  /** Whether the server has stopped it as requested here, and whether the server could not be reached for that. */
  isStopped = false;
  isOutOfReach = false;
  /** Settled when the server has answered a request to stop. */
  stopping = undefined;
  #isStopping = false;

  /**
   * `stop()` asks the server to stop the turn; `again()` is the action of "Try again", which answers a message if `isMessage`.
   * `replaced` is the id of the last item of the answer that a retry replaces.
   */
  constructor({ stop, again, provisional, refused, replaced, isMessage = false, isStored = false }) {
    Object.assign(this, { stop, again, provisional, refused, replaced, isMessage, isStored });
  }

  get signal() {
    return this.controller.signal;
  }

  /** Called with the message that a followed turn answers: trying again answers it once more. */
  answers(again) {
    this.again = again;
    this.isMessage = true;
  }

  /** Called with the first event: the server has stored the request. */
  store() {
    this.isStored = true;
    if (this.#isStopping) this.stopping = this.#askToStop();
  }

  /** Stop the turn: its stream then ends by itself, with the text that the server has kept. */
  requestStop() {
    if (this.#isStopping) return;
    this.#isStopping = true;
    if (this.isStored) this.stopping = this.#askToStop();
    else setTimeout(() => this.isStored || this.#giveUp(), FIRST_EVENT_MS);
  }

  /** Read no further. The turn continues on the server. */
  leave() {
    this.controller.abort();
  }

  #giveUp() {
    this.leave();
    // It may have reached the server all the same.
    this.stop().catch(() => {});
  }

  async #askToStop() {
    try {
      this.isStopped = await this.stop();
      setTimeout(() => this.leave(), STOP_MS);
    } catch {
      this.isOutOfReach = true;
      this.leave();
    }
  }
}
