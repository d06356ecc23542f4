// Headers of every page. The chat and its files are excluded, because a proxy buffers bodies and truncates those over 10 MB.

import { NextResponse } from "next/server";

export function proxy(): NextResponse {
  const response = NextResponse.next();
  response.headers.set("x-frame-options", "DENY");
  response.headers.set("x-content-type-options", "nosniff");
  response.headers.set("referrer-policy", "strict-origin-when-cross-origin");
  return response;
}

export const config = { matcher: ["/((?!api/chatkit|api/attachments|api/threads|_next/).*)"] };
