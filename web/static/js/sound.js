// One tone for yes, another for no; off by a button, and that is remembered on this machine.

const TONES = { good: [[1175, 0.09]], bad: [[220, 0.16], [165, 0.24]], ask: [[660, 0.07], [880, 0.07]] };
const KEPT = "counter.mute";
let audio = null;

export const isMuted = () => localStorage.getItem(KEPT) === "yes";
export const mute = (wanted) => localStorage.setItem(KEPT, wanted ? "yes" : "no");

/** Play the tone of an answer; without an audio device nothing happens. */
export function play(name) {
  const tones = TONES[name];
  if (!tones || isMuted()) return;
  audio ??= new AudioContext();
  let at = audio.currentTime;
  for (const [frequency, seconds] of tones) {
    const oscillator = new OscillatorNode(audio, { frequency, type: name === "bad" ? "square" : "sine" });
    const gain = new GainNode(audio, { gain: 0.12 });
    oscillator.connect(gain).connect(audio.destination);
    oscillator.start(at);
    oscillator.stop((at += seconds));
  }
}
