import type { MiddlewareHandler } from "hono";

/** ChatKit's script, its frame, and what the frame asks. */
const CHATKIT = "https://cdn.platform.openai.com https://*.openai.com";
const POLICY = [
  "default-src 'self'",
  "script-src 'self' https://cdn.platform.openai.com",
  "style-src 'self' 'unsafe-inline'",
  `img-src 'self' data: blob: ${CHATKIT}`,
  `connect-src 'self' ${CHATKIT}`,
  `frame-src ${CHATKIT}`,
  "object-src 'none'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

/** Headers of the page and of its files. */
export const pageHeaders: MiddlewareHandler = async ({ header }, next) => {
  await next();
  header("content-security-policy", POLICY);
  header("x-content-type-options", "nosniff");
  header("referrer-policy", "strict-origin-when-cross-origin");
};
