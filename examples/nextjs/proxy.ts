// Headers of every page. The chat and its files are excluded, because a proxy buffers bodies and truncates those over 10 MB.

import { type NextRequest, NextResponse } from "next/server";

/** ChatKit's script, its frame, and what the frame asks. */
const CHATKIT = "https://cdn.platform.openai.com https://*.openai.com";

export function proxy(request: NextRequest): NextResponse {
  // Next.js reads the policy of the request, and puts the nonce on its own scripts, which load ChatKit's.
  const policy = policyWith(btoa(crypto.randomUUID()));
  const headers = new Headers(request.headers);
  headers.set("content-security-policy", policy);
  const response = NextResponse.next({ request: { headers } });
  response.headers.set("content-security-policy", policy);
  response.headers.set("x-frame-options", "DENY");
  response.headers.set("x-content-type-options", "nosniff");
  response.headers.set("referrer-policy", "strict-origin-when-cross-origin");
  return response;
}

function policyWith(nonce: string): string {
  // The development server evaluates code, and has a socket.
  const isDevelopment = process.env.NODE_ENV === "development";
  return [
    "default-src 'self'",
    `script-src 'self' 'nonce-${nonce}' 'strict-dynamic'${isDevelopment ? " 'unsafe-eval'" : ""}`,
    "style-src 'self' 'unsafe-inline'",
    `img-src 'self' data: blob: ${CHATKIT}`,
    `connect-src 'self' ${CHATKIT}${isDevelopment ? " ws:" : ""}`,
    `frame-src ${CHATKIT}`,
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join("; ");
}

export const config = { matcher: ["/((?!api/chatkit|api/attachments|api/threads|_next/).*)"] };
