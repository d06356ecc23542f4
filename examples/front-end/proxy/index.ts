export { type ChatBackend, ask, forward, refusal } from "./forward";
export { chatProxy } from "./chat-proxy";
export { isSameOrigin } from "./same-origin";
