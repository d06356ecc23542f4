export { Chat, type ChatProps, type ClientConfig } from "./chat";
export { type Hit, Search, Snippet } from "./search";
export { useLiveTurn } from "./use-live-turn";
export { useReminder } from "./use-reminder";
export { type Theme, useTheme } from "./use-theme";
