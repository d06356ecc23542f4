export { idempotentFetch } from "./idempotent-fetch";
export { followTurn, stopTurn } from "./live-turn";
export { turnFetch } from "./turn-fetch";
export { withMetadata } from "./with-metadata";
